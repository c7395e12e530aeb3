//! The store's thread: takes jobs in order, one transaction each.

use super::{Store, StoreError};
use crate::limits::STORE_JOBS_MAX;
use std::path::PathBuf;
use tokio::sync::{mpsc, oneshot};

enum Job {
    Run(Box<dyn FnOnce(&mut Store) + Send>),
    Close,
}

/// Hands jobs to the store's thread. The thread ends when it is told to, or when the last handle is gone; every
/// job handed over before is done first.
#[derive(Clone, Debug)]
pub(crate) struct StoreHandle {
    jobs: mpsc::Sender<Job>,
}

impl StoreHandle {
    /// Opens the store on a thread of its own. The receiver tells when that has ended and the file is closed.
    pub(crate) async fn open(folder: PathBuf) -> Result<(Self, oneshot::Receiver<()>), StoreError> {
        let (jobs, mut taken) = mpsc::channel::<Job>(STORE_JOBS_MAX);
        let (opened, open) = oneshot::channel();
        let (closed, closing) = oneshot::channel();
        std::thread::Builder::new().name("ringline-store".into()).spawn(move || {
            let mut store = match Store::open(&folder) {
                Ok(store) => {
                    let _ = opened.send(Ok(()));
                    store
                }
                Err(error) => {
                    let _ = opened.send(Err(error));
                    return;
                }
            };
            while let Some(Job::Run(job)) = taken.blocking_recv() {
                job(&mut store);
            }
            drop(store);
            let _ = closed.send(());
        })?;
        open.await.map_err(|_| StoreError::Failed)??;
        Ok((Self { jobs }, closing))
    }

    /// Runs a job on the store's thread.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Store) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, StoreError> {
        let (reply, answer) = oneshot::channel();
        let job = Job::Run(Box::new(move |store| {
            // Whoever asked may have gone; the job is done all the same.
            let _ = reply.send(job(store));
        }));
        self.jobs.send(job).await.map_err(|_| StoreError::Failed)?;
        answer.await.map_err(|_| StoreError::Failed)?
    }

    /// Closes the file after what was handed over before.
    pub(crate) async fn close(&self) {
        // If the thread has ended, the file is closed.
        let _ = self.jobs.send(Job::Close).await;
    }
}
