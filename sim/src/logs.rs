//! What the production code logs, as a part of the story and as probes.

use std::cell::Cell;
use std::fmt::{Debug, Write};

use futures_util::FutureExt;
use simhost::{World, current_host};
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::span::{Attributes, Id, Record};
use tracing::subscriber::Interest;
use tracing::{Event, Level, Metadata, Subscriber};

use crate::probes;

/// Crates whose logs are listened to.
const TARGETS: [&str; 5] = ["meta", "node", "client", "env", "placement"];

thread_local! {
    /// What is logged is no part of the story: somebody looks at what processes have left.
    static LOOKING: Cell<bool> = const { Cell::new(false) };
}

/// Looks at something by means of production code, which logs nothing meanwhile. None when it would wait: what is
/// at rest can be read at once.
pub fn quietly<F: Future>(look: F) -> Option<F::Output> {
    let before = LOOKING.replace(true);
    let seen = look.now_or_never();
    LOOKING.set(before);
    seen
}

/// Feeds log lines to a world. Spans are switched off: lines are told with their host, and entering and
/// leaving spans at each poll would cost more than the lines.
struct ToWorld(World);

/// A log line as text.
struct Line {
    message: String,
    fields: Option<String>,
}

impl Visit for Line {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        // Writing to a string does not fail.
        if field.name() == "message" {
            _ = write!(self.message, "{value:?}");
        } else if let Some(fields) = &mut self.fields {
            _ = write!(fields, " {}={value:?}", field.name());
        }
    }
}

fn is_wanted(metadata: &Metadata<'_>) -> bool {
    let target = metadata.target().split("::").next().unwrap_or_default();
    metadata.is_event() && *metadata.level() <= Level::DEBUG && TARGETS.contains(&target)
}

impl Subscriber for ToWorld {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if is_wanted(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        is_wanted(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::DEBUG)
    }

    /// Never called: no span is enabled.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn event(&self, event: &Event<'_>) {
        if LOOKING.get() {
            return;
        }
        let fields = self.0.wants_story().then(String::new);
        let mut line = Line { message: String::new(), fields };
        event.record(&mut line);
        if let Some(probe) = probes::of_log(&line.message) {
            self.0.probe(probe);
        }
        let level = event.metadata().level();
        self.0
            .tell(current_host(), || format!("{level} {}{}", line.message, line.fields.unwrap_or_default()));
    }

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// While it lives, what this thread logs goes to the world.
pub fn into_world(world: &World) -> tracing::subscriber::DefaultGuard {
    tracing::subscriber::set_default(ToWorld(world.clone()))
}
