//! The frames of one turn. Each is encoded once, and written to every session that it is staged on.
//!
//! A shard collects the publications and replies of a turn, stages them, and flushes at the end of the turn. Small frames are
//! copied one after the other into one run of bytes, so a session usually writes all it has staged as one slice. Large frames are
//! not copied into the run; each is a slice of its own. A session keeps frames that the kernel did not accept as references to the
//! frames themselves and not to the run. So a slow subscriber does not keep messages of other sessions in memory.

use std::io::IoSlice;
use std::ops::Range;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::config::limits::{RUN_FRAME_BYTES_MAX, TURN_BYTES_MAX};
use crate::hub::Topic;

/// A frame's number in its run.
pub type FrameNumber = u32;

/// The frames that a session has staged, by number. A stretch is a range of successive numbers: the last one is here, earlier ones
/// are in the run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Staged {
    first: FrameNumber,
    end: FrameNumber,
    /// Index of the stretch before this one in [`Run::stretches`], plus one. 0: there is none.
    earlier: u32,
}

/// The frames of one turn, in one encoding.
#[derive(Debug, Default)]
pub struct Run {
    bytes: Vec<u8>,
    frames: Vec<Frame>,
    /// Earlier stretches of sessions that staged frames which do not follow each other.
    stretches: Vec<Staged>,
    /// How many frames are large.
    large: u32,
    /// The length of all frames together.
    length: usize,
}

#[derive(Debug)]
struct Frame {
    /// Where it starts in the run. For a large frame: where the next small frame starts.
    start: usize,
    length: usize,
    /// The length of all frames before it.
    before: usize,
    /// The frame itself, if it is shared. Large frames always are.
    shared: Option<Bytes>,
    /// How many large frames are before it.
    large_before: u32,
    /// The channel it was published on; `None`: a reply.
    topic: Option<Topic>,
}

/// A frame that the kernel did not accept completely.
#[derive(Debug)]
pub struct Waiting {
    /// The whole frame.
    pub bytes: Bytes,
    /// The channel it was published on; `None`: a reply.
    pub topic: Option<Topic>,
    /// How many bytes of it are written.
    pub written: usize,
}

/// Slices to write, usually few.
pub type Slices<'a> = SmallVec<[IoSlice<'a>; 8]>;

impl Staged {
    /// Whether nothing is staged.
    pub fn is_empty(self) -> bool {
        self.first == self.end
    }

    /// Whether the last frame staged is the one before number `end`.
    pub fn ends_at(self, end: FrameNumber) -> bool {
        !self.is_empty() && self.end == end
    }
}

impl Run {
    /// Adds a frame whose bytes are shared.
    pub fn push(&mut self, frame: &Bytes, topic: Topic) -> FrameNumber {
        let large = frame.len() > RUN_FRAME_BYTES_MAX;
        let start = self.bytes.len();
        if !large {
            self.bytes.extend_from_slice(frame);
        }
        self.add(start, frame.len(), Some((frame.clone(), topic)), large)
    }

    /// Adds a frame that is written directly into the run: a reply to one session.
    pub fn push_with(&mut self, write: impl FnOnce(&mut Vec<u8>)) -> FrameNumber {
        let start = self.bytes.len();
        write(&mut self.bytes);
        self.add(start, self.bytes.len() - start, None, false)
    }

    fn add(&mut self, start: usize, length: usize, shared: Option<(Bytes, Topic)>, large: bool) -> FrameNumber {
        let (shared, topic) = shared.unzip();
        self.frames.push(Frame { start, length, before: self.length, shared, large_before: self.large, topic });
        self.length += length;
        self.large += u32::from(large);
        self.frames.len() as FrameNumber - 1
    }

    /// The number of the next frame.
    pub fn next(&self) -> FrameNumber {
        self.frames.len() as FrameNumber
    }

    /// Whether it has no frames.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// The memory that it holds, in bytes: all frames, whether copied into the run or not, and the entries for frames and
    /// stretches.
    pub fn cost(&self) -> usize {
        self.length + self.frames.len() * size_of::<Frame>() + self.stretches.len() * size_of::<Staged>()
    }

    /// How many bytes are staged.
    pub fn bytes_staged(&self, staged: Staged) -> usize {
        let bytes = |frames: Range<FrameNumber>| {
            let last = frames.end.checked_sub(1).and_then(|last| self.frames.get(last as usize));
            last.map_or(0, |last| last.before + last.length - self.frames[frames.start as usize].before)
        };
        match staged.earlier {
            // Almost always there is one stretch.
            0 => bytes(staged.first..staged.end),
            _ => self.stretches_of(staged).into_iter().map(bytes).sum(),
        }
    }

    /// Stages `frames` after those that are staged already.
    pub fn stage(&mut self, staged: &mut Staged, frames: Range<FrameNumber>) {
        if staged.end == frames.start && !staged.is_empty() {
            staged.end = frames.end;
        } else if staged.is_empty() {
            *staged = Staged { first: frames.start, end: frames.end, earlier: 0 };
        } else {
            self.stretches.push(*staged);
            *staged = Staged { first: frames.start, end: frames.end, earlier: self.stretches.len() as u32 };
        }
    }

    /// The bytes staged, as slices in order. It is one slice if the frames are small and follow each other.
    pub fn slices(&self, staged: Staged) -> Slices<'_> {
        let mut slices = Slices::new();
        if staged.earlier == 0 {
            self.append(staged.first..staged.end, &mut slices);
        } else {
            for stretch in self.stretches_of(staged) {
                self.append(stretch, &mut slices);
            }
        }
        slices
    }

    /// The staged frames that remain after the first `written` bytes were written.
    pub fn unwritten(&self, staged: Staged, written: usize) -> impl Iterator<Item = Waiting> {
        let mut skip = written;
        self.stretches_of(staged).into_iter().flatten().filter_map(move |number| {
            let frame = &self.frames[number as usize];
            if skip >= frame.length && skip > 0 {
                skip -= frame.length;
                return None;
            }
            Some(Waiting { bytes: self.frame(frame), topic: frame.topic, written: std::mem::take(&mut skip) })
        })
    }

    /// Removes all frames. The memory is kept for the next turn, up to a limit.
    pub fn clear(&mut self) {
        self.bytes.clear();
        self.bytes.shrink_to(2 * TURN_BYTES_MAX);
        self.frames.clear();
        self.frames.shrink_to(2 * TURN_BYTES_MAX / size_of::<Frame>());
        self.stretches.clear();
        self.stretches.shrink_to(2 * TURN_BYTES_MAX / size_of::<Staged>());
        self.large = 0;
        self.length = 0;
    }

    fn frame(&self, frame: &Frame) -> Bytes {
        let copy = || Bytes::copy_from_slice(&self.bytes[frame.start..frame.start + frame.length]);
        frame.shared.clone().unwrap_or_else(copy)
    }

    fn stretches_of(&self, staged: Staged) -> SmallVec<[Range<FrameNumber>; 4]> {
        let mut stretches = SmallVec::new();
        let mut at = staged;
        loop {
            stretches.push(at.first..at.end);
            match at.earlier {
                0 => break,
                earlier => at = self.stretches[earlier as usize - 1],
            }
        }
        stretches.reverse();
        stretches
    }

    fn append<'a>(&'a self, frames: Range<FrameNumber>, slices: &mut Slices<'a>) {
        let Some(last) = frames.end.checked_sub(1).and_then(|last| self.frames.get(last as usize)) else { return };
        let first = &self.frames[frames.start as usize];
        let is_large = |frame: &Frame| frame.length > RUN_FRAME_BYTES_MAX && frame.shared.is_some();
        if first.large_before == last.large_before && !is_large(last) {
            slices.push(IoSlice::new(&self.bytes[first.start..last.start + last.length]));
            return;
        }
        for frame in &self.frames[frames.start as usize..frames.end as usize] {
            let bytes = match &frame.shared {
                Some(shared) if is_large(frame) => shared,
                _ => &self.bytes[frame.start..frame.start + frame.length],
            };
            slices.push(IoSlice::new(bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::HubId;

    fn push(run: &mut Run, frame: &Bytes) -> FrameNumber {
        run.push(frame, Topic::of(HubId(0), "all"))
    }

    fn bytes(slices: &Slices<'_>) -> Vec<u8> {
        slices.iter().flat_map(|slice| slice.to_vec()).collect()
    }

    #[test]
    fn small_frames_that_follow_each_other_are_one_slice() {
        let mut run = Run::default();
        let mut staged = Staged::default();
        for text in ["ab", "cd", "ef"] {
            let number = push(&mut run, &Bytes::from_static(text.as_bytes()));
            run.stage(&mut staged, number..number + 1);
        }
        let slices = run.slices(staged);
        assert_eq!((slices.len(), bytes(&slices)), (1, b"abcdef".to_vec()));
    }

    #[test]
    fn the_cost_includes_the_entry_of_each_small_frame() {
        let mut run = Run::default();
        for _ in 0..1000 {
            run.push_with(|out| out.extend_from_slice(&[0x8a, 0]));
        }
        assert!(run.cost() >= run.frames.len() * size_of::<Frame>() + run.bytes.len(), "{}", run.cost());
        run.clear();
        assert_eq!(run.cost(), 0);
    }

    #[test]
    fn the_cost_includes_the_stretches_and_their_memory_is_released() {
        let mut run = Run::default();
        let mut sessions = vec![Staged::default(); 10_000];
        // Every second frame is not for these sessions, so each of their frames is a stretch.
        for _ in 0..100 {
            let number = push(&mut run, &Bytes::from_static(b"for all"));
            sessions.iter_mut().for_each(|staged| run.stage(staged, number..number + 1));
            push(&mut run, &Bytes::from_static(b"for one"));
        }
        assert!(run.cost() >= 99 * 10_000 * size_of::<Staged>(), "{}", run.cost());
        assert_eq!(run.bytes_staged(sessions[0]), 100 * "for all".len());
        run.clear();
        assert!(run.stretches.capacity() * size_of::<Staged>() <= 2 * TURN_BYTES_MAX);
    }

    #[test]
    fn gaps_and_large_frames_keep_their_order() {
        let mut run = Run::default();
        let mut staged = Staged::default();
        let large = Bytes::from(vec![b'L'; RUN_FRAME_BYTES_MAX + 1]);
        let a = push(&mut run, &Bytes::from_static(b"a"));
        push(&mut run, &Bytes::from_static(b"not mine"));
        let b = run.push_with(|out| out.push(b'b'));
        let l = push(&mut run, &large);
        let c = push(&mut run, &Bytes::from_static(b"c"));
        run.stage(&mut staged, a..a + 1);
        run.stage(&mut staged, b..b + 1);
        run.stage(&mut staged, l..c + 1);
        let expected = [b"ab".to_vec(), large.to_vec(), b"c".to_vec()].concat();
        assert_eq!(run.bytes_staged(staged), expected.len());
        assert_eq!(bytes(&run.slices(staged)), expected);
        for written in 0..expected.len() {
            let left: Vec<u8> =
                run.unwritten(staged, written).flat_map(|frame| frame.bytes[frame.written..].to_vec()).collect();
            assert_eq!(left, expected[written..], "after {written}");
        }
    }
}
