//! Says once that a stream to a peer is lost, and once that it stands again, however often it is tried meanwhile.

use std::time::Duration;
use tokio::time::timeout;
use tonic::Code;

/// A stream that is open for so long stands: a peer that is not reached, or answers nothing, is given up before.
const STANDS: Duration = Duration::from_secs(5);

/// What was said of the streams to one peer.
#[derive(Debug, Default)]
pub struct Outage {
    /// The codes with which streams ended since the last one stood.
    said: Vec<Code>,
}

impl Outage {
    /// A stream ended, or was not opened, with this code. Returns true if that is to be said: it is the first end since a
    /// stream stood, or the first with this code, as of a peer that is reached now and refuses.
    pub fn ended(&mut self, code: Code) -> bool {
        let is_news = !self.said.contains(&code);
        if is_news {
            self.said.push(code);
        }
        is_news
    }

    /// Waits for the end of a stream. If it stands, and it was said that an earlier one ended, `say` is called.
    pub async fn follow<T>(&mut self, stream: impl Future<Output = T>, say: impl FnOnce()) -> T {
        tokio::pin!(stream);
        if let Ok(ended) = timeout(STANDS, &mut stream).await {
            return ended;
        }
        if self.stands() {
            say();
        }
        stream.await
    }

    /// A stream is open for [`STANDS`]. Returns true if that is to be said: it was said that an earlier one ended.
    fn stands(&mut self) -> bool {
        !std::mem::take(&mut self.said).is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_end_is_said_once_until_a_stream_stands() {
        let mut outage = Outage::default();
        assert!(!outage.stands(), "it never ended");
        assert!(outage.ended(Code::Unavailable));
        assert!(!outage.ended(Code::Unavailable), "it was said");
        assert!(outage.ended(Code::PermissionDenied), "it is reached, and refuses");
        assert!(!outage.ended(Code::Unavailable), "it was said");
        assert!(outage.stands());
        assert!(!outage.stands(), "it was said");
        assert!(outage.ended(Code::Unavailable));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_stands_once_it_is_open_for_a_while() {
        let mut outage = Outage::default();
        let mut said = 0;
        for (code, lasts, expected) in [
            (Code::Unavailable, STANDS / 2, 0),
            (Code::Unavailable, 2 * STANDS, 1),
            (Code::Unavailable, 2 * STANDS, 2),
        ] {
            outage.follow(tokio::time::sleep(lasts), || said += 1).await;
            assert_eq!(said, expected, "after {lasts:?}");
            outage.ended(code);
        }
        let mut sound = Outage::default();
        sound.follow(tokio::time::sleep(2 * STANDS), || said += 1).await;
        assert_eq!(said, 2, "nothing was lost");
    }
}
