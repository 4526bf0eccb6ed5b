//! Times of the engine's stages, from its spans to the metrics port.

use std::time::Instant;

use engine::{metrics, spans};
use tracing::{
    Subscriber,
    field::{Field, Visit},
    span::{Attributes, Id, Record},
};
use tracing_subscriber::{
    Layer,
    layer::Context,
    registry::{LookupSpan, SpanRef},
};

/// Bounds of the shortest and the longest time that is told from others.
const TIMES_SECONDS: (f64, f64) = (10e-6, 30.0);

/// From one bound to the next.
const STEP: f64 = 1.3;

/// Upper bounds of the buckets, in seconds.
pub(crate) fn buckets() -> Vec<f64> {
    std::iter::successors(Some(TIMES_SECONDS.0), |bound| Some(bound * STEP))
        .take_while(|bound| *bound < TIMES_SECONDS.1)
        .collect()
}

/// Measures spans of [`spans::TARGET`] from when they are made until they close.
pub(crate) struct StageTimes;

/// A span under way.
struct Begun {
    at: Instant,
    transactions: u64,
}

impl Visit for Begun {
    fn record_u64(&mut self, field: &Field, value: u64) {
        if field.name() == spans::TRANSACTIONS {
            self.transactions = value;
        }
    }

    fn record_debug(&mut self, _: &Field, _: &dyn std::fmt::Debug) {}
}

impl<S: Subscriber + for<'a> LookupSpan<'a>> Layer<S> for StageTimes {
    fn on_new_span(&self, attributes: &Attributes<'_>, id: &Id, context: Context<'_, S>) {
        let mut begun = Begun { at: Instant::now(), transactions: 0 };
        attributes.record(&mut begun);
        if let Some(span) = context.span(id) {
            span.extensions_mut().insert(begun);
        }
    }

    fn on_record(&self, id: &Id, values: &Record<'_>, context: Context<'_, S>) {
        let begun = |span: SpanRef<'_, S>| span.extensions_mut().get_mut::<Begun>().map(|begun| values.record(begun));
        context.span(id).and_then(begun);
    }

    fn on_close(&self, id: Id, context: Context<'_, S>) {
        let Some(span) = context.span(&id) else { return };
        if let Some(Begun { at, transactions }) = span.extensions().get::<Begun>()
            && let Ok(count) = usize::try_from(*transactions)
            && count > 0
        {
            let times = ::metrics::histogram!(metrics::STAGE_SECONDS, "stage" => span.name());
            times.record_many(at.elapsed().as_secs_f64(), count);
        }
    }
}
