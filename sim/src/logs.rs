//! What the production code logs, as a part of the story and as probes.

use std::fmt::{Debug, Write};

use simhost::{World, current_host};
use tracing::field::{Field, Visit};
use tracing::{Event, Subscriber};
use tracing_subscriber::layer::{Context, Layer};
use tracing_subscriber::prelude::*;

use crate::probes;

/// Feeds log lines to a world.
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

impl<S: Subscriber> Layer<S> for ToWorld {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
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
}

/// While it lives, what this thread logs goes to the world.
pub fn into_world(world: &World) -> tracing::subscriber::DefaultGuard {
    let filter = tracing_subscriber::filter::Targets::new().with_targets(
        ["meta", "node", "client", "env", "placement"].map(|name| (name, tracing::Level::DEBUG)),
    );
    let layer = ToWorld(world.clone()).with_filter(filter);
    tracing_subscriber::registry().with(layer).set_default()
}
