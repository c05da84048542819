//! Threads with a runtime each: how the gateway, and so what stands before and behind it here, carries connections.

use std::io;

use tokio::runtime::{Builder, Handle};

/// As many as the machine has cores.
pub(crate) struct Threads(Vec<Handle>);

impl Threads {
    /// Starts them; they end with the process.
    pub(crate) fn start() -> io::Result<Threads> {
        let cores = std::thread::available_parallelism().map_or(1, usize::from);
        let start = |_| {
            let runtime = Builder::new_current_thread().enable_all().build()?;
            let handle = runtime.handle().clone();
            std::thread::spawn(move || runtime.block_on(std::future::pending::<()>()));
            Ok(handle)
        };
        (0..cores).map(start).collect::<io::Result<_>>().map(Threads)
    }

    /// The thread of connection `number`: each in its turn.
    pub(crate) fn of(&self, number: usize) -> &Handle {
        &self.0[number % self.0.len()]
    }
}
