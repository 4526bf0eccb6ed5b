//! Keystores against the EIP's own, and everything that is refused.

use std::{
    fs::Permissions,
    os::unix::fs::{PermissionsExt as _, symlink},
};

use alloy_primitives::{FixedBytes, hex};
use engine::{crypto::bls::verify_possession, types::PublicKey};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;

/// Password, secret, salt and initialisation vector of both vectors in EIP-2335.
const PASSWORD: &str = "\u{1d531}\u{1d522}\u{1d530}\u{1d531}\u{1d52d}\u{1d51e}\u{1d530}\u{1d530}\u{1d534}\u{1d52c}\u{1d52f}\u{1d521}\u{1f511}";
const SECRET: [u8; 32] = hex!("000000000019d6689c085ae165831e934ff763ae46a2a6c172b3f1b60a8ce26f");
const PUBLIC: [u8; 48] =
    hex!("9612d7a727c9d0a22e185a1c768478dfe919cada9266988cb32359c11f2b7b27f4ae4040902382ae2910c15e2b420d07");
const SALT: [u8; 32] = hex!("d4e56740f876aef8c010b86a40d5f56745a118d0906a34e69aec8c0db1cb8fa3");
const IV: [u8; 16] = hex!("264daa3f303d7259501c93d997d84fe6");

fn eip_scrypt() -> Value {
    json!({
        "crypto": {
            "kdf": {
                "function": "scrypt",
                "params": {"dklen": 32, "n": 262_144, "p": 1, "r": 8, "salt": hex::encode(SALT)},
                "message": ""
            },
            "checksum": {
                "function": "sha256", "params": {},
                "message": "d2217fe5f3e9a1e34581ef8a78f7c9928e436d36dacc5e846690a5581e8ea484"
            },
            "cipher": {
                "function": "aes-128-ctr", "params": {"iv": hex::encode(IV)},
                "message": "06ae90d55fe0a6e9c5c3bc5b170827b2e5cce3929ed3f116c2811e6366dfe20f"
            }
        },
        "description": "This is a test keystore that uses scrypt to secure the secret.",
        "pubkey": hex::encode(PUBLIC),
        "path": "m/12381/60/3141592653/589793238",
        "uuid": "1d85ae20-35c5-4611-98e8-aa14a633906f",
        "version": 4
    })
}

fn eip_pbkdf2() -> Value {
    json!({
        "crypto": {
            "kdf": {
                "function": "pbkdf2",
                "params": {"dklen": 32, "c": 262_144, "prf": "hmac-sha256", "salt": hex::encode(SALT)},
                "message": ""
            },
            "checksum": {
                "function": "sha256", "params": {},
                "message": "8a9f5d9912ed7e75ea794bc5a89bca5f193721d30868ade6f73043c6ea6febf1"
            },
            "cipher": {
                "function": "aes-128-ctr", "params": {"iv": hex::encode(IV)},
                "message": "cee03fde2af33149775b7223e7845e4fb2c8ae1792e5f99fe9ecf474cc8c16ad"
            }
        },
        "description": "This is a test keystore that uses PBKDF2 to secure the secret.",
        "pubkey": hex::encode(PUBLIC),
        "path": "m/12381/60/0/0",
        "uuid": "64625def-3331-4eea-ab6f-782f3ed16a83",
        "version": 4
    })
}

fn parse(value: &Value) -> eyre::Result<Keystore> {
    Keystore::parse(value.to_string().as_bytes())
}

fn eip_password() -> Password {
    Password::new(PASSWORD).unwrap()
}

/// A keystore of the EIP's key that costs nothing to open.
fn cheap(password: &Password) -> Keystore {
    let drawn = Drawn { salt: SALT, iv: IV, uuid: [7; 16] };
    Keystore::seal(&SECRET, PublicKey(FixedBytes(PUBLIC)), password, Kdf::LIGHT, &drawn).unwrap()
}

fn said<T>(result: eyre::Result<T>) -> String {
    result.map_or_else(|error| format!("{error:#}"), |_| "accepted".to_owned())
}

#[test]
fn the_keystores_of_the_eip_open() {
    for value in [eip_scrypt(), eip_pbkdf2()] {
        let keystore = parse(&value).unwrap();
        assert_eq!(keystore.path, value["path"].as_str().unwrap());
        assert_eq!(keystore.open(&eip_password()).unwrap().public_key().0, PUBLIC);
    }
}

#[test]
fn a_key_is_sealed_as_the_eip_seals_it() {
    let drawn = Drawn { salt: SALT, iv: IV, uuid: [7; 16] };
    for (kdf, value) in [(Kdf::SCRYPT, eip_scrypt()), (Kdf::PBKDF2, eip_pbkdf2())] {
        let keystore = Keystore::seal(&SECRET, PublicKey(FixedBytes(PUBLIC)), &eip_password(), kdf, &drawn).unwrap();
        let written: Value = serde_json::from_str(&keystore.text()).unwrap();
        for field in ["crypto", "pubkey", "version"] {
            assert_eq!(written[field], value[field], "{field}");
        }
        assert_eq!(written["path"], "");
        assert_eq!(written["uuid"], "07070707-0707-4707-8707-070707070707");
        assert_eq!(Keystore::parse(keystore.text().as_bytes()).unwrap(), keystore);
    }
}

#[test]
fn the_keystores_among_the_fixtures_open() {
    let beside = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/fixtures");
    let folder = std::env::var("SLUICE_FIXTURES").map_or_else(|_| beside(), PathBuf::from).join("keystore");
    let Ok(entries) = std::fs::read_dir(&folder) else {
        eprintln!("skipped: there are no fixtures in {}", folder.display());
        return;
    };
    let files = entries.map(|entry| entry.unwrap().path());
    let files: Vec<_> = files.filter(|file| file.extension().is_some_and(|extension| extension == "json")).collect();
    assert!(!files.is_empty(), "{} holds no fixture", folder.display());
    for file in files {
        let keystore = Keystore::parse(&std::fs::read(&file).unwrap()).unwrap();
        assert_eq!(keystore.open(&eip_password()).unwrap().public_key().0, PUBLIC, "{}", file.display());
    }
}

#[test]
fn a_password_is_what_is_left_of_it_in_nfkd_without_control_codes() {
    let keystore = cheap(&eip_password());
    for same in ["testpassword\u{1f511}", "test\u{7f}password\u{9d}\u{1f511}\r\n", PASSWORD] {
        assert!(keystore.open(&Password::new(same).unwrap()).is_ok(), "{same:?}");
    }
    for other in ["testpassword", "testpassword\u{1f511} ", "Testpassword\u{1f511}"] {
        assert_eq!(
            said(keystore.open(&Password::new(other).unwrap())),
            "the password is wrong, or crypto.cipher.message is damaged: crypto.checksum differs"
        );
    }
    assert!(Password::new("").is_none() && Password::new("\r\n\u{7f}").is_none());
    // The character that grows most.
    assert!(Password::new(&"\u{fdfa}".repeat(340)).is_some());
}

/// One field changed, and what is said of it; a field is taken out by null.
#[test]
fn whatever_is_wrong_with_a_file_is_refused_by_the_name_of_its_field() {
    let (scrypt, pbkdf2) = (eip_scrypt(), eip_pbkdf2());
    for (file, field, wrong, expected) in [
        (&scrypt, "/version", json!(3), "version is 3: must be 4"),
        (&scrypt, "/version", json!("4"), "version must be a whole number"),
        (&scrypt, "/version", Value::Null, "version is missing"),
        (&scrypt, "/crypto", json!([1]), "crypto.kdf is missing"),
        (&scrypt, "/crypto/kdf", json!(7), "crypto.kdf.message is missing"),
        (&scrypt, "/crypto/kdf/message", json!("00"), "crypto.kdf.message must be empty"),
        (&scrypt, "/crypto/kdf/function", json!("argon2"), "crypto.kdf.function must be scrypt or pbkdf2"),
        (&scrypt, "/crypto/kdf/params/dklen", json!(64), "crypto.kdf.params.dklen is 64: must be 32"),
        (&scrypt, "/crypto/kdf/params/n", json!(-2), "crypto.kdf.params.n must be a whole number"),
        (&scrypt, "/crypto/kdf/params/n", json!(1.5), "crypto.kdf.params.n must be a whole number"),
        (&scrypt, "/crypto/kdf/params/n", json!(1), "crypto.kdf.params.n is 1: must be 2 to 536870912"),
        (&scrypt, "/crypto/kdf/params/n", json!(262_143), "crypto.kdf.params.n is 262143: must be a power of two"),
        (&scrypt, "/crypto/kdf/params/n", json!(1 << 20), "crypto.kdf.params take 1073742848 bytes: at most 536870912"),
        (&scrypt, "/crypto/kdf/params/r", json!(0), "crypto.kdf.params.r is 0: must be 1 to 4294967295"),
        (&scrypt, "/crypto/kdf/params/r", json!(u32::MAX), "crypto.kdf.params take 144115737798115200 bytes"),
        (&scrypt, "/crypto/kdf/params/p", json!(u32::MAX), "crypto.kdf.params take 4398314945536 bytes"),
        (&scrypt, "/crypto/kdf/params/p", json!(u64::MAX), "crypto.kdf.params.p is 18446744073709551615: must be"),
        (&scrypt, "/crypto/kdf/params/p", json!(5), "crypto.kdf.params fill 1342177280 bytes: at most 1073741824"),
        (&scrypt, "/crypto/kdf/params/salt", json!(""), "crypto.kdf.params.salt must be 1 to 256 bytes in hex"),
        (&scrypt, "/crypto/kdf/params/salt", json!("zz"), "crypto.kdf.params.salt must be 1 to 256 bytes in hex"),
        (&scrypt, "/crypto/kdf/params/salt", json!("00".repeat(257)), "crypto.kdf.params.salt must be 1 to 256"),
        (&pbkdf2, "/crypto/kdf/params/c", json!(0), "crypto.kdf.params.c is 0: must be 1 to 4194304"),
        (&pbkdf2, "/crypto/kdf/params/c", json!(4_194_305), "crypto.kdf.params.c is 4194305: must be 1 to 4194304"),
        (&pbkdf2, "/crypto/kdf/params/prf", json!("hmac-sha1"), "crypto.kdf.params.prf must be hmac-sha256"),
        (&scrypt, "/crypto/checksum/function", json!("md5"), "crypto.checksum.function must be sha256"),
        (&scrypt, "/crypto/checksum/message", json!("00"), "crypto.checksum.message must be 32 bytes in hex"),
        (&scrypt, "/crypto/cipher/function", json!("xor"), "crypto.cipher.function must be aes-128-ctr"),
        (&scrypt, "/crypto/cipher/params/iv", json!("00"), "crypto.cipher.params.iv must be 16 bytes in hex"),
        (&scrypt, "/crypto/cipher/message", json!("00".repeat(33)), "crypto.cipher.message must be 32 bytes in hex"),
        (&scrypt, "/crypto/cipher/message", json!(12), "crypto.cipher.message must be a string"),
        (&scrypt, "/pubkey", json!("00"), "pubkey must be 48 bytes in hex"),
        (&scrypt, "/path", json!("m/1/../2"), "path must be empty or such as"),
        (&scrypt, "/path", json!("m/\u{1b}[2J"), "path must be empty or such as"),
        (&scrypt, "/path", Value::Null, "path is missing"),
        (&scrypt, "/uuid", json!("1d85ae20"), "uuid must be a UUID"),
        (&scrypt, "/description", json!({}), "description must be a string"),
    ] {
        let mut changed = file.clone();
        match wrong {
            Value::Null => assert!(changed.as_object_mut().unwrap().remove(&field[1..]).is_some()),
            wrong => *changed.pointer_mut(field).unwrap() = wrong,
        }
        let said = said(parse(&changed));
        assert!(said.starts_with(expected), "{field}: {said}");
    }
}

#[test]
fn what_a_file_may_leave_out_it_may_leave_out() {
    let mut value: Value = serde_json::from_str(&cheap(&eip_password()).text()).unwrap();
    for field in ["pubkey", "description"] {
        value.as_object_mut().unwrap().remove(field).unwrap();
    }
    let keystore = parse(&value).unwrap();
    assert_eq!((keystore.public_key, keystore.open(&eip_password()).unwrap().public_key().0.0), (None, PUBLIC));
    assert_eq!(Keystore::parse(keystore.text().as_bytes()).unwrap(), keystore);
}

#[test]
fn a_key_is_refused_that_is_none_or_not_the_one_that_is_stated() {
    let drawn = Drawn { salt: SALT, iv: IV, uuid: [7; 16] };
    let seal = |secret: &[u8; 32]| {
        let key = PublicKey(FixedBytes(PUBLIC));
        Keystore::seal(secret, key, &eip_password(), Kdf::LIGHT, &drawn).unwrap().open(&eip_password())
    };
    let none = "crypto.cipher.message holds no secret key of BLS12-381";
    assert_eq!(said(seal(&[0; 32])), none);
    assert_eq!(said(seal(&[0xff; 32])), none);
    let other = said(seal(&[1; 32]));
    assert!(other.starts_with(&format!("pubkey is 0x{}, but the key's is 0x", hex::encode(PUBLIC))), "{other}");
    assert!(!other.contains(&"01".repeat(32)), "{other}");
}

/// Every beginning of a file, and every byte of it changed: refused, or read within the bounds, but no panic, and no
/// word of what stands in the file.
#[test]
fn damaged_files_are_refused_in_words_of_ours() {
    let text = cheap(&eip_password()).text();
    for end in 0..text.trim_end().len() {
        assert_ne!(said(Keystore::parse(&text.as_bytes()[..end])), "accepted", "{end}");
    }
    for at in 0..text.len() {
        for byte in [0, b'"', b'0', b'9', b'}', b'x', 0xff] {
            let mut bytes = text.clone().into_bytes();
            bytes[at] = byte;
            if let Ok(Keystore { kdf: Kdf::Scrypt { log_n, r, p }, .. }) = Keystore::parse(&bytes) {
                assert!(128 * u64::from(r) * ((1 << log_n) + u64::from(p)) <= 512 << 20, "{log_n} {r} {p}");
            }
        }
    }
    for canary in [r#""c0ffee""#, r#"{"version":4,"crypto":"c0ffee"}"#, r#"{"version":"c0ffee"}"#, "c0ffee", "{c0ffee"]
    {
        let said = said(Keystore::parse(canary.as_bytes()));
        assert!(said != "accepted" && !said.contains("c0ffee"), "{said}");
    }
}

/// A folder of mode 0700 with a password file and one keystore.
fn key_folder() -> (TempDir, PathBuf, SecretKey) {
    let folder = tempfile::tempdir().unwrap();
    write_new(&folder.path().join("password"), b"correct horse\n").unwrap();
    let keys = folder.path().join("keys");
    create_folder(&keys).unwrap();
    let password = password(&folder.path().join("password")).unwrap();
    let (file, key) = create(&keys, &password, Kdf::LIGHT).unwrap();
    (folder, file, key)
}

fn set_mode(path: &Path, mode: u32) {
    std::fs::set_permissions(path, Permissions::from_mode(mode)).unwrap();
}

fn mode(path: &Path) -> u32 {
    std::fs::metadata(path).unwrap().permissions().mode() & 0o7777
}

#[test]
fn a_new_keystore_is_its_owners_alone_and_opens_again() {
    let (folder, file, key) = key_folder();
    assert_eq!((mode(&file), mode(file.parent().unwrap())), (0o600, 0o700));
    assert_eq!(
        file.file_name().unwrap().to_str().unwrap(),
        format!("keystore-{}.json", hex::encode(key.public_key().0))
    );
    let opened = open(&file, &folder.path().join("password")).unwrap();
    assert_eq!(opened.public_key(), key.public_key());
    let left: Vec<_> = std::fs::read_dir(file.parent().unwrap()).unwrap().collect();
    assert_eq!(left.len(), 1, "{left:?}");
    let again = said(write_new(&file, b"another"));
    assert!(again.starts_with("cannot write ") && again.contains("exists"), "{again}");
    assert!(open(&file, &folder.path().join("password")).is_ok());
}

#[test]
fn looser_modes_are_refused() {
    let (folder, file, _) = key_folder();
    let (keys, password) = (file.parent().unwrap(), folder.path().join("password"));
    for (path, right, wrong) in [
        (&*file, 0o600, [0o640, 0o604, 0o620, 0o601]),
        (keys, 0o700, [0o750, 0o705, 0o710, 0o701]),
        (&*password, 0o600, [0o644, 0o640, 0o602, 0o610]),
    ] {
        for loose in wrong {
            set_mode(path, loose);
            let said = said(open(&file, &password));
            let expected = format!("{} has mode {loose:04o}, so others have access to it", path.display());
            assert!(said.starts_with(&expected), "{said}");
        }
        set_mode(path, right);
        assert!(open(&file, &password).is_ok());
    }
    set_mode(&file, 0o400);
    set_mode(keys, 0o500);
    assert!(open(&file, &password).is_ok());
    set_mode(keys, 0o755);
    assert!(said(create_folder(keys)).contains("has mode 0755"));
    set_mode(keys, 0o700);
}

#[test]
fn what_is_no_secret_file_is_refused() {
    let (folder, file, _) = key_folder();
    let password_file = folder.path().join("password");
    let made = |name: &str, bytes: &[u8]| {
        let path = folder.path().join(name);
        write_new(&path, bytes).unwrap();
        path
    };
    let with = |path: &Path| said(open(&file, path));
    assert!(with(&made("empty", b"\n")).ends_with("empty holds no password"));
    assert!(with(&made("latin", b"\xe9t\xe9")).ends_with("latin is not UTF-8"));
    assert!(with(&made("long", &[b'a'; 1_025])).ends_with("long has more than 1024 bytes"));
    assert!(with(&made("other", b"correct horse.")).contains("the password is wrong"));
    assert!(with(folder.path()).ends_with(" is no file"));
    assert!(with(&folder.path().join("none")).starts_with("cannot read "));
    let fifo = folder.path().join("fifo");
    rustix::fs::mkfifoat(rustix::fs::CWD, &fifo, rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR).unwrap();
    assert!(with(&fifo).ends_with("fifo is no file"));
    let big = made("keys/big.json", &[b' '; 20_000]);
    assert!(said(open(&big, &password_file)).ends_with("big.json has more than 16384 bytes"));
    // A link is as good as what it leads to.
    symlink(&password_file, folder.path().join("link")).unwrap();
    assert_eq!(with(&folder.path().join("link")), "accepted");
}

#[test]
fn a_node_signs_with_exactly_one_key() {
    let (folder, file, _) = key_folder();
    let keys = file.parent().unwrap();
    assert_eq!(only_keystore(keys).unwrap(), file);
    write_new(&keys.join("notes.txt"), b"").unwrap();
    assert_eq!(only_keystore(keys).unwrap(), file);
    let password = password(&folder.path().join("password")).unwrap();
    let (second, _) = create(keys, &password, Kdf::LIGHT).unwrap();
    let several = said(only_keystore(keys));
    assert!(several.contains("holds several keystores, keystore-") && several.ends_with("a node signs with one key"));
    for file in [&file, &second] {
        std::fs::remove_file(file).unwrap();
    }
    assert!(said(only_keystore(keys)).ends_with("holds no keystore, a file that ends in .json"));
    set_mode(keys, 0o755);
    assert!(said(only_keystore(keys)).contains("has mode 0755"));
}

/// A chain of the validators with these keys, stake 1, 2, ...
fn chain(keys: &[&SecretKey]) -> ChainSpec {
    let operator = Address::repeat_byte(7);
    let validators: Vec<_> = (1_u64..)
        .zip(keys)
        .map(|(stake, key)| ValidatorConfig {
            bls_pubkey: key.public_key().0.into(),
            proof_of_possession: key.prove_possession(operator, 1_001).0.into(),
            identity: B256::with_last_byte(u8::try_from(stake).unwrap()).into(),
            addresses: vec![format!("127.0.0.1:{}", 9_000 + stake)],
            stake,
            fee_recipient: operator,
        })
        .collect();
    let mut file = crate::genesis::file(1_001, 30_000_000, &[]);
    crate::genesis::name_validators(&mut file, &validators).unwrap();
    crate::genesis::parse(&file.to_string()).unwrap()
}

#[test]
fn a_node_is_the_validator_whose_key_it_has_or_follows() {
    let (folder, file, key) = key_folder();
    let (_, other) = draw_key().unwrap();
    let args = ValidatorArgs {
        validator_keys: Some(file.parent().unwrap().to_owned()),
        validator_password_file: Some(folder.path().join("password")),
    };
    let none = ValidatorArgs { validator_keys: None, validator_password_file: None };

    let named = role(&args, &chain(&[&other, &key])).unwrap();
    assert_eq!(named.line, format!("validator  1 of 2, stake 2, key {}", key.public_key().0));
    assert_eq!(named.operator, Address::repeat_byte(7));
    assert_eq!(named.identity.unwrap().public_key, key.public_key());

    let follower = role(&none, &chain(&[&other, &key])).unwrap();
    assert_eq!(follower.line, "follower   of 2 validators, stake 3 in all");
    assert!(follower.identity.is_none());

    let stranger = said(role(&args, &chain(&[&other])));
    let expected = format!("holds key {}, which is none of the chain's 1 validators", key.public_key().0);
    assert!(stranger.ends_with(&expected), "{stranger}");

    let alone = role(&none, &chain(&[])).unwrap();
    assert_eq!(alone.identity.unwrap().public_key, SecretKey::development().public_key());
    assert!(said(role(&args, &chain(&[]))).contains("which is none of the chain's 1 validators"));
}

#[test]
fn what_keys_prove_prints_becomes_a_genesis_file() {
    let (_, key) = draw_key().unwrap();
    let chain = chain(&[&key, &draw_key().unwrap().1]);
    let named = chain.ordering.validators.iter().map(|validator| ValidatorConfig {
        bls_pubkey: validator.bls_pubkey.clone(),
        proof_of_possession: validator.proof_of_possession.clone(),
        identity: validator.identity.clone(),
        addresses: validator.addresses.clone(),
        stake: validator.stake,
        fee_recipient: validator.fee_recipient,
    });
    let lines: Vec<_> = named.map(|validator| serde_json::to_string(&validator).unwrap()).collect();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("validators.json");
    let read = |text: &str| {
        std::fs::write(&path, text).unwrap();
        let mut file = crate::genesis::file(1_001, 30_000_000, &[]);
        crate::genesis::name_validators(&mut file, &crate::genesis::validators(&path)?)?;
        crate::genesis::parse(&file.to_string())
    };
    assert_eq!(read(&lines.join("\n")).unwrap(), chain);
    assert!(said(read("\n")).ends_with("names no validator"));
    assert!(said(read(&lines[0][1..])).starts_with("cannot read validators from "));
    assert!(said(read(&lines[0].replace("stake", "steak"))).contains("unknown field `steak`"));
    assert!(said(read(&" ".repeat((1 << 20) + 1))).ends_with("has more than 1048576 bytes"));
    assert!(said(read(&[&*lines[0], &lines[0]].concat())).contains("is that of another validator"));
}

#[test]
fn a_proof_holds_for_its_operator_and_chain() {
    let (_, key) = draw_key().unwrap();
    let operator = Address::repeat_byte(3);
    let proof = key.prove_possession(operator, 5);
    assert!(verify_possession(&key.public_key(), operator, 5, &proof));
    assert!(!verify_possession(&key.public_key(), operator, 6, &proof));
}

#[test]
fn an_identity_is_drawn_once_and_kept_from_others() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("identity.key");
    let drawn = identity(folder.path()).unwrap();
    assert_eq!(mode(&file), 0o600);
    let text = std::fs::read_to_string(&file).unwrap();
    assert_eq!(text, format!("{}\n", hex::encode(drawn.seed())));
    assert_eq!(identity(folder.path()).unwrap().public_key(), drawn.public_key());
    assert_ne!(identity(tempfile::tempdir().unwrap().path()).unwrap().public_key(), drawn.public_key());

    set_mode(&file, 0o640);
    assert!(said(identity(folder.path())).contains("has mode 0640, so others have access to it"));
    set_mode(&file, 0o600);
    for wrong in ["", "00\n", &"0".repeat(63), &"g".repeat(64), &format!("0x{}", "0".repeat(62)), &"0".repeat(66)] {
        std::fs::write(&file, wrong).unwrap();
        let said = said(identity(folder.path()));
        assert!(said.ends_with("must hold 64 digits of hex and the end of a line"), "{wrong}: {said}");
    }
    assert!(said(identity(&folder.path().join("none"))).starts_with("cannot write "));
}
