//! The frames of one turn: encoded once, written by every session they are staged on.
//!
//! A shard collects what a turn brings, stages it, and flushes at the end of the turn. Small frames stand one behind the other in one
//! run of bytes, so that whatever a session has staged leaves in one write of one slice; large frames are not copied into the
//! run and go as slices of their own. What the kernel refuses is kept by the session as references to the frames
//! themselves, not to the run, so a slow subscriber never holds on to its neighbours' messages.

use std::io::IoSlice;
use std::ops::Range;

use bytes::Bytes;
use smallvec::SmallVec;

use crate::config::limits::{RUN_FRAME_BYTES_MAX, TURN_BYTES_MAX};
use crate::hub::Topic;

/// A frame's number in its run.
pub type FrameNumber = u32;

/// What a session has staged: numbers of frames. The last stretch is here, earlier ones are in the run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Staged {
    first: FrameNumber,
    end: FrameNumber,
    /// Place of the stretch before this one in [`Run::stretches`], plus one; 0: none.
    earlier: u32,
}

/// The frames of one turn, in one framing.
#[derive(Debug, Default)]
pub struct Run {
    bytes: Vec<u8>,
    frames: Vec<Frame>,
    /// Stretches of sessions that staged frames which do not follow each other.
    stretches: Vec<Staged>,
    large: u32,
    /// How long all frames are.
    length: usize,
}

#[derive(Debug)]
struct Frame {
    /// Where it starts in the run; for a large frame, where it would.
    start: usize,
    length: usize,
    /// How long all frames before it are.
    before: usize,
    /// The frame itself, where it is shared or large.
    shared: Option<Bytes>,
    /// How many large frames came before it.
    large_before: u32,
    /// The channel it was published on; `None`: a reply.
    topic: Option<Topic>,
}

/// A frame that a socket did not take.
#[derive(Debug)]
pub struct Waiting {
    /// The whole frame.
    pub bytes: Bytes,
    /// The channel it was published on; `None`: a reply.
    pub topic: Option<Topic>,
    /// How much of it is written.
    pub written: usize,
}

/// Slices to write, with room for the usual few.
pub type Slices<'a> = SmallVec<[IoSlice<'a>; 8]>;

impl Staged {
    /// Whether nothing is staged.
    pub fn is_empty(self) -> bool {
        self.first == self.end
    }
}

impl Run {
    /// Adds a frame that others may hold too.
    pub fn push(&mut self, frame: &Bytes, topic: Topic) -> FrameNumber {
        let large = frame.len() > RUN_FRAME_BYTES_MAX;
        let start = self.bytes.len();
        if !large {
            self.bytes.extend_from_slice(frame);
        }
        self.add(start, frame.len(), Some((frame.clone(), topic)), large)
    }

    /// Adds a frame that is written straight into the run: a reply to one session.
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

    /// The number the next frame will get.
    pub fn next(&self) -> FrameNumber {
        self.frames.len() as FrameNumber
    }

    /// Whether it has no frames.
    pub fn is_empty(&self) -> bool {
        self.frames.is_empty()
    }

    /// What it holds of memory, in bytes: its frames, copied into the run or not, and what is noted of them and of who gets which.
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

    /// Stages `frames` behind what is staged already.
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

    /// The bytes staged, as slices in order. One slice where the frames follow each other and are small.
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

    /// The frames staged that remain when the first `written` bytes have been written.
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

    /// Forgets everything; the memory is kept for the next turn, within reason.
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
    fn what_follows_each_other_is_one_slice() {
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
    fn many_small_frames_do_not_pass_for_little() {
        let mut run = Run::default();
        for _ in 0..1000 {
            run.push_with(|out| out.extend_from_slice(&[0x8a, 0]));
        }
        assert!(run.cost() >= run.frames.len() * size_of::<Frame>() + run.bytes.len(), "{}", run.cost());
        run.clear();
        assert_eq!(run.cost(), 0);
    }

    #[test]
    fn what_is_noted_of_many_subscribers_is_counted_and_given_back() {
        let mut run = Run::default();
        let mut sessions = vec![Staged::default(); 10_000];
        // Every second frame is for somebody else: each session notes a stretch for each of its own.
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
