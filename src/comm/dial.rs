//! Calling workers: one request, one answer, on pooled comms.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::timeout;

use crate::comm::{CommError, Connection, Fence, Tls};
use crate::dask::WorkerAddress;
use crate::wire::frame::Message;
use crate::wire::limits::Limits;

/// A worker that imports a large package answers nobody meanwhile.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(30);
/// Idle comms kept for one worker.
const IDLE_MAX: usize = 4;

/// Why a call to a worker has no answer.
#[derive(Debug, Error)]
pub enum CallError {
    #[error("failed to reach {address}")]
    Unreachable {
        address: WorkerAddress,
        #[source]
        source: CommError,
    },
    #[error("{address} went away before it answered")]
    NoAnswer { address: WorkerAddress },
    #[error("{address} is no address that can be called: it must look like {scheme}://10.0.0.7:40001")]
    BadAddress { address: WorkerAddress, scheme: &'static str },
}

/// How addresses begin whose comms are encrypted like this.
pub fn scheme(tls: Option<&Tls>) -> &'static str {
    if tls.is_some() { "tls" } else { "tcp" }
}

/// Comms to workers, kept for the next call.
#[derive(Debug)]
pub struct Pool {
    /// Where calls are made: not on the thread of the loop that wants them made.
    runtime: Handle,
    tls: Option<Tls>,
    fence: Fence,
    idle: Mutex<BTreeMap<WorkerAddress, Vec<Connection>>>,
}

impl Pool {
    /// A pool whose calls are made on this runtime, and while this fence is open.
    pub fn new(runtime: Handle, tls: Option<Tls>, fence: Fence) -> Self {
        Self { runtime, tls, fence, idle: Mutex::default() }
    }

    /// Whether its comms are encrypted.
    pub fn is_encrypted(&self) -> bool {
        self.tls.is_some()
    }

    /// Does what makes calls, and works on what they bring, beside the loop that wants it done.
    pub fn spawn(&self, calling: impl Future<Output = ()> + Send + 'static) {
        self.runtime.spawn(calling);
    }

    /// Sends one request and waits for its answer, as long as it takes.
    ///
    /// # Errors
    /// When the worker cannot be reached or goes away. A pooled comm that turns out to be dead is replaced once.
    pub async fn call(&self, address: &WorkerAddress, request: Vec<Bytes>) -> Result<Message, CallError> {
        let (message, connection) = self.exchange(address, request).await?;
        self.give_back(address, connection);
        Ok(message)
    }

    /// As `call`, but sends `confirmation` after the answer, as `get_data` wants it.
    ///
    /// # Errors
    /// As `call`.
    pub async fn call_confirmed(
        &self,
        address: &WorkerAddress,
        request: Vec<Bytes>,
        confirmation: Vec<Bytes>,
    ) -> Result<Message, CallError> {
        let (message, mut connection) = self.exchange(address, request).await?;
        if connection.sender.send(confirmation).await.is_ok() {
            self.give_back(address, connection);
        }
        Ok(message)
    }

    /// Drops what is kept for a worker that is gone.
    pub fn forget(&self, address: &WorkerAddress) {
        self.idle().remove(address);
    }

    async fn exchange(&self, address: &WorkerAddress, request: Vec<Bytes>) -> Result<(Message, Connection), CallError> {
        let pooled = self.idle().get_mut(address).and_then(Vec::pop);
        if let Some(mut connection) = pooled {
            // The worker may have closed it meanwhile; then nothing was done and a fresh comm is tried.
            if let Ok(Some(message)) = ask(&mut connection, request.clone()).await {
                return Ok((message, connection));
            }
        }
        let mut connection = self.connect(address).await?;
        match ask(&mut connection, request).await {
            Ok(Some(message)) => Ok((message, connection)),
            Ok(None) => Err(CallError::NoAnswer { address: address.clone() }),
            Err(source) => Err(CallError::Unreachable { address: address.clone(), source }),
        }
    }

    async fn connect(&self, address: &WorkerAddress) -> Result<Connection, CallError> {
        let scheme = scheme(self.tls.as_ref());
        if address.scheme() != scheme {
            return Err(CallError::BadAddress { address: address.clone(), scheme });
        }
        let connecting = async {
            let stream = TcpStream::connect(address.host_and_port()).await.map_err(CommError::Connect)?;
            Connection::connect(stream, self.tls.as_ref(), CONNECT_TIMEOUT).await
        };
        let result = timeout(CONNECT_TIMEOUT, connecting).await.unwrap_or(Err(CommError::ConnectTimeout(CONNECT_TIMEOUT)));
        let mut connection = result.map_err(|source| CallError::Unreachable { address: address.clone(), source })?;
        connection.sender.fence(&self.fence);
        connection.receiver.set_limits(Limits::REGISTERED);
        Ok(connection)
    }

    fn give_back(&self, address: &WorkerAddress, connection: Connection) {
        let mut idle = self.idle();
        let kept = idle.entry(address.clone()).or_default();
        if kept.len() < IDLE_MAX {
            kept.push(connection);
        }
    }

    fn idle(&self) -> std::sync::MutexGuard<'_, BTreeMap<WorkerAddress, Vec<Connection>>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn ask(connection: &mut Connection, request: Vec<Bytes>) -> Result<Option<Message>, CommError> {
    connection.sender.send(request).await?;
    connection.receiver.receive().await
}
