//! Stands before a worker, passes on all that is said, and notes when long answers of its came.

use std::cell::RefCell;
use std::rc::Rc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::now;

const BUFFER_BYTES: usize = 1024 * 1024;

/// What one side said before the other had its turn.
#[derive(Clone, Debug, Default)]
pub(crate) struct Turn {
    pub(crate) bytes: usize,
    /// When its first bytes came and when its last, in seconds since 1970.
    pub(crate) first: f64,
    pub(crate) last: f64,
}

/// The longest answer since it was last read, with the question before it.
#[derive(Debug, Default)]
pub(crate) struct Longest {
    pub(crate) question: Turn,
    pub(crate) answer: Turn,
}

/// The turns of one connection.
#[derive(Default)]
struct Talk {
    question: Turn,
    answer: Turn,
}

impl Turn {
    fn add(&mut self, bytes: usize) {
        let at = now();
        if self.bytes == 0 {
            self.first = at;
        }
        self.last = at;
        self.bytes += bytes;
    }
}

pub(crate) async fn run(listener: TcpListener, to: u16, longest: Rc<RefCell<Longest>>) -> anyhow::Result<()> {
    loop {
        let (asker, _) = listener.accept().await?;
        let worker = TcpStream::connect(("127.0.0.1", to)).await?;
        asker.set_nodelay(true)?;
        worker.set_nodelay(true)?;
        let talk = Rc::new(RefCell::new(Talk::default()));
        let (mut from_asker, mut to_asker) = asker.into_split();
        let (mut from_worker, mut to_worker) = worker.into_split();
        let (asking, longest) = (Rc::clone(&talk), Rc::clone(&longest));
        tokio::task::spawn_local(async move {
            let mut buffer = vec![0; BUFFER_BYTES];
            while let Ok(bytes @ 1..) = from_asker.read(&mut buffer).await {
                {
                    let mut talk = asking.borrow_mut();
                    if talk.answer.bytes > 0 {
                        *talk = Talk::default();
                    }
                    talk.question.add(bytes);
                }
                if to_worker.write_all(&buffer[..bytes]).await.is_err() {
                    break;
                }
            }
        });
        tokio::task::spawn_local(async move {
            let mut buffer = vec![0; BUFFER_BYTES];
            while let Ok(bytes @ 1..) = from_worker.read(&mut buffer).await {
                note_answer(&talk, &longest, bytes);
                if to_asker.write_all(&buffer[..bytes]).await.is_err() {
                    break;
                }
            }
        });
    }
}

fn note_answer(talk: &RefCell<Talk>, longest: &RefCell<Longest>, bytes: usize) {
    let (mut talk, mut longest) = (talk.borrow_mut(), longest.borrow_mut());
    talk.answer.add(bytes);
    if talk.answer.bytes >= longest.answer.bytes {
        *longest = Longest { question: talk.question.clone(), answer: talk.answer.clone() };
    }
}
