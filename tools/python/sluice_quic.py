"""A client of a Sluice node over QUIC: submits transactions and hears what becomes of each.

The bytes are those of docs/quic.md. Needs the packages aioquic and pycryptodome.

    async with Client("127.0.0.1", 8547) as client:
        submission = await client.submit(raw)       # does not wait for the node
        await submission.admitted()
        included = await submission.included()
        print(included.height, included.gas_used)

Submissions are pipelined. A connection that is lost is made anew; the client then asks what became of what it submitted
and submits again, in order, what the node does not know.
"""

import asyncio
import datetime
import ssl
import struct
from dataclasses import dataclass

import aioquic.asyncio
from aioquic.asyncio.protocol import QuicConnectionProtocol
from aioquic.quic.configuration import QuicConfiguration
from aioquic.quic.events import ConnectionTerminated, StreamDataReceived
from Crypto.Hash import keccak as _keccak
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

ALPN = "sluice-tx/1"
TRANSACTION_BYTES_MAX = 131_072
EVENT_BYTES_MAX = 32 << 20
QUESTION_HASHES_MAX = 1_024
CONNECT_TIME_MAX = 5
RETRY_FIRST, RETRY_MAX = 0.05, 2.0
KEEP_ALIVE = 3

WELCOME, ADMITTED, REFUSED, NOTARIZED, FINAL, DROPPED, UNKNOWN = 0, 1, 2, 3, 4, 5, 6


def keccak(data):
    """The hash of an encoded transaction."""
    return _keccak.new(digest_bits=256, data=data).digest()


class WireError(Exception):
    """The node sent what no node sends."""


class Refused(Exception):
    """The transaction is not in the pool. `code` is for programs."""

    def __init__(self, code, words):
        super().__init__(f"{words} (code {code})")
        self.code = code


class Dropped(Refused):
    """The transaction was in the pool and will not be included."""


@dataclass(frozen=True)
class Included:
    """Where and how a transaction was included."""

    height: int
    index: int
    block: bytes
    success: bool
    gas_used: int
    gas_price: int
    contract: bytes | None
    logs: bytes
    """RLP list of (address, topics, data)."""


@dataclass(frozen=True)
class Notarized:
    """Where a transaction will be included, unless the slot of its block is skipped after all."""

    height: int
    index: int
    block: bytes
    success: bool


@dataclass(frozen=True)
class Welcome:
    """What the node says first."""

    version: int
    chain_id: int
    height: int
    window: int
    outstanding: int


def decode(piece):
    """Kind, hash and content of an event; `None` for a kind that is not known here."""
    kind, body = piece[0], piece[1:]
    try:
        if kind == WELCOME:
            return kind, None, Welcome(*struct.unpack_from(">BQQII", body))
        if kind not in (ADMITTED, REFUSED, NOTARIZED, FINAL, DROPPED, UNKNOWN):
            return None
        tx_hash, body = body[:32], body[32:]
        if len(tx_hash) < 32:
            raise WireError(f"an event of kind {kind} without a hash")
        if kind in (REFUSED, DROPPED):
            (code,) = struct.unpack_from(">H", body)
            return kind, tx_hash, (Refused if kind == REFUSED else Dropped)(code, body[2:].decode())
        if kind == NOTARIZED:
            return kind, tx_hash, Notarized(*struct.unpack_from(">QI32s?", body))
        if kind == FINAL:
            height, index, block, success, gas_used, high, low, has = struct.unpack_from(">QI32s?QQQ?", body)
            rest = body[struct.calcsize(">QI32s?QQQ?") :]
            contract, logs = (rest[:20], rest[20:]) if has else (None, rest)
            price = high << 64 | low
            return kind, tx_hash, Included(height, index, block, success, gas_used, price, contract, logs)
        return kind, tx_hash, None
    except (struct.error, UnicodeDecodeError) as error:
        raise WireError(f"an event of kind {kind} that does not decode: {error}") from error


class Cutter:
    """Cuts the bytes of a stream into what stands behind each length."""

    def __init__(self):
        self.begun = bytearray()

    def feed(self, data):
        """The pieces that are whole now."""
        self.begun += data
        at = 0
        while len(self.begun) - at >= 4:
            (length,) = struct.unpack_from(">I", self.begun, at)
            if not 1 <= length <= EVENT_BYTES_MAX:
                raise WireError(f"an event of {length} bytes")
            if len(self.begun) - at < 4 + length:
                break
            yield bytes(self.begun[at + 4 : at + 4 + length])
            at += 4 + length
        del self.begun[:at]


class Submission:
    """A transaction under way."""

    def __init__(self, number, raw):
        loop = asyncio.get_running_loop()
        self.hash, self.raw, self._number = keccak(raw), raw, number
        self._admitted, self._end = loop.create_future(), loop.create_future()
        self.last_notarized = None

    async def admitted(self):
        """Waits until it is in the pool, or included at once; raises `Refused` or `Dropped`."""
        await asyncio.wait([self._admitted, self._end], return_when=asyncio.FIRST_COMPLETED)
        if self._end.done():
            self._end.result()

    async def included(self):
        """Waits for the final block that includes it; raises `Refused` or `Dropped`."""
        return await asyncio.shield(self._end)

    def _take(self, kind, content):
        """Whether this is its end."""
        if kind == ADMITTED:
            if not self._admitted.done():
                self._admitted.set_result(None)
            return False
        if kind == NOTARIZED:
            self.last_notarized = content
            return False
        if kind == FINAL:
            self._end.set_result(content)
        else:
            self._end.set_exception(content)
            # Whoever does not ask is not told on the standard error output.
            self._end.exception()
        return True


class _Connection(QuicConnectionProtocol):
    """One connection: the stream of events, answers, and the stream of transactions."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.take = lambda kind, tx_hash, content: None
        self.welcome = asyncio.get_running_loop().create_future()
        self.lost = asyncio.get_running_loop().create_future()
        self._events, self._answers, self._out = Cutter(), {}, None

    def quic_event_received(self, event):
        try:
            if isinstance(event, StreamDataReceived):
                self._data(event)
            elif isinstance(event, ConnectionTerminated) and not self.lost.done():
                self.lost.set_result(f"{event.reason_phrase or 'closed'} (code {event.error_code})")
        except WireError as error:
            self.close(error_code=0, reason_phrase=str(error))

    def _data(self, event):
        answer = self._answers.get(event.stream_id)
        if answer is None:
            for piece in self._events.feed(event.data):
                self._event(decode(piece))
            return
        cutter, found, done = answer
        found.extend(filter(None, map(decode, cutter.feed(event.data))))
        if event.end_stream and not done.done():
            del self._answers[event.stream_id]
            done.set_result(found)

    def _event(self, event):
        if event is None:
            return
        kind, tx_hash, content = event
        if kind == WELCOME:
            if not self.welcome.done():
                self.welcome.set_result(content)
        else:
            self.take(kind, tx_hash, content)

    def send(self, raws):
        """Appends transactions to the one stream for them."""
        if self._out is None:
            self._out = self._quic.get_next_available_stream_id(is_unidirectional=True)
        self._quic.send_stream_data(self._out, b"".join(struct.pack(">I", len(raw)) + raw for raw in raws))
        self.transmit()

    async def ask(self, hashes):
        """What became of transactions: events, one for each."""
        stream = self._quic.get_next_available_stream_id()
        done = asyncio.get_running_loop().create_future()
        self._answers[stream] = (Cutter(), [], done)
        self._quic.send_stream_data(stream, b"\1" + b"".join(hashes), end_stream=True)
        self.transmit()
        await asyncio.wait([done, self.lost], return_when=asyncio.FIRST_COMPLETED)
        if not done.done():
            raise ConnectionError(self.lost.result())
        return done.result()

    def node_key(self):
        """The key that the node has proven to have."""
        # aioquic has no other door to it.
        return self._quic.tls._peer_certificate.public_key().public_bytes_raw()


class Client:
    """A client of one node; `key` is its own, `node_key` that of the node if no other is to be talked to."""

    def __init__(self, host, port, key=None, node_key=None):
        self._address, self._node_key = (host, port), node_key
        key = key or Ed25519PrivateKey.generate()
        self._configuration = QuicConfiguration(
            is_client=True, alpn_protocols=[ALPN], verify_mode=ssl.CERT_NONE, server_name="sluice", idle_timeout=10.0
        )
        self._configuration.certificate = _certificate(key)
        self._configuration.private_key = key
        self._waiting, self._number, self._connection, self._task = {}, 0, None, None
        self.welcome = None

    async def __aenter__(self):
        met = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._serve(met))
        await asyncio.wait([met, self._task], return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            self._task.result()
        self._room = asyncio.Semaphore(self.welcome.outstanding)
        return self

    async def __aexit__(self, *_):
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)

    async def submit(self, raw):
        """Hands in a transaction in its EIP-2718 encoding; waits while as many wait to be included as may."""
        if not 1 <= len(raw) <= TRANSACTION_BYTES_MAX:
            raise ValueError(f"a transaction of {len(raw)} bytes, where 1 to {TRANSACTION_BYTES_MAX} are allowed")
        await self._room.acquire()
        submission = Submission(self._number, bytes(raw))
        if submission.hash in self._waiting:
            self._room.release()
            raise ValueError("the same transaction is under way already")
        self._number += 1
        self._waiting[submission.hash] = submission
        if self._connection is not None:
            self._connection.send([submission.raw])
        return submission

    def _take(self, kind, tx_hash, content):
        submission = self._waiting.get(tx_hash)
        if submission is not None and submission._take(kind, content):
            del self._waiting[tx_hash]
            self._room.release()

    async def _serve(self, met):
        wait = RETRY_FIRST
        while True:
            try:
                async with asyncio.timeout(CONNECT_TIME_MAX) as limit:
                    async with self._connect() as connection:
                        welcome = await _or_lost(connection, connection.welcome)
                        limit.reschedule(None)
                        self.welcome = self.welcome or welcome
                        wait = RETRY_FIRST
                        await self._catch_up(connection)
                        if not met.done():
                            met.set_result(None)
                        await self._keep(connection)
            except (OSError, asyncio.TimeoutError) as error:
                if not met.done():
                    raise ConnectionError(f"the node is not reached: {error or 'it does not answer'}") from error
            finally:
                self._connection = None
            await asyncio.sleep(wait)
            wait = min(2 * wait, RETRY_MAX)

    def _connect(self):
        host, port = self._address
        return aioquic.asyncio.connect(host, port, configuration=self._configuration, create_protocol=_Connection)

    async def _catch_up(self, connection):
        """What was submitted before goes first: a nonce that comes too early has to wait, and few may."""
        if self._node_key is not None and connection.node_key() != self._node_key:
            raise ConnectionError("another node answers there")
        connection.take = self._take
        before = sorted(self._waiting.values(), key=lambda submission: submission._number)
        for first in range(0, len(before), QUESTION_HASHES_MAX):
            some = before[first : first + QUESTION_HASHES_MAX]
            events = await connection.ask([submission.hash for submission in some])
            unknown = [self._waiting.get(tx_hash) for kind, tx_hash, _ in events if kind == UNKNOWN]
            for kind, tx_hash, content in events:
                if kind != UNKNOWN:
                    self._take(kind, tx_hash, content)
            connection.send([submission.raw for submission in unknown if submission])
        # What came while the node was asked.
        later = list(self._waiting.values())
        last = before[-1]._number if before else -1
        connection.send([submission.raw for submission in later if submission._number > last])
        self._connection = connection

    async def _keep(self, connection):
        while not connection.lost.done():
            await asyncio.wait([connection.lost], timeout=KEEP_ALIVE)
            if not connection.lost.done():
                await asyncio.wait([asyncio.ensure_future(connection.ping()), connection.lost], return_when="FIRST_COMPLETED")


async def _or_lost(connection, future):
    await asyncio.wait([future, connection.lost], return_when=asyncio.FIRST_COMPLETED)
    if not future.done():
        raise ConnectionError(connection.lost.result())
    return future.result()


def _certificate(key):
    """A self-signed certificate over a key; nobody looks at anything else in it."""
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "sluice")])
    begin = datetime.datetime(2000, 1, 1)
    builder = x509.CertificateBuilder(name, name, key.public_key(), 1, begin, begin.replace(year=9999))
    return builder.sign(key, None)
