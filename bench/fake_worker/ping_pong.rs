//! How long a message and its answer take on loopback at best: the unit of what must wait for an answer.

use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::thread;
use std::time::Instant;

const MESSAGE_BYTES: usize = 256;
const ROUNDS: usize = 2_000;
const BATCHES: usize = 10;

/// A round trip between two threads, in microseconds: the least of some medians, for they depend on where the threads run.
pub(crate) fn measure() -> anyhow::Result<f64> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let mut here = TcpStream::connect(listener.local_addr()?)?;
    let (mut there, _) = listener.accept()?;
    here.set_nodelay(true)?;
    there.set_nodelay(true)?;
    let echo = thread::spawn(move || {
        let mut buffer = [0; MESSAGE_BYTES];
        while there.read_exact(&mut buffer).is_ok() && there.write_all(&buffer).is_ok() {}
    });
    let mut buffer = [0; MESSAGE_BYTES];
    let mut medians = Vec::with_capacity(BATCHES);
    for _ in 0..BATCHES {
        let mut took = Vec::with_capacity(ROUNDS);
        for _ in 0..ROUNDS {
            let began = Instant::now();
            here.write_all(&buffer)?;
            here.read_exact(&mut buffer)?;
            took.push(began.elapsed());
        }
        took.sort();
        medians.push(took[ROUNDS / 2]);
    }
    drop(here);
    echo.join().map_err(|_| anyhow::anyhow!("the other thread has ended in a panic"))?;
    Ok(medians.into_iter().min().unwrap_or_default().as_secs_f64() * 1e6)
}
