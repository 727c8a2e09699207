//! A file with its precompressed siblings, as it was when it was last looked at. Opens nothing.

use std::borrow::Cow;
use std::cell::{Cell, RefCell};
use std::fs::Metadata;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::rc::Rc;
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;

use super::Rules;
use crate::app::coding::Coding;
use crate::http::{ReadyFields, disposition};
use crate::proto::h1::EncodeError;

/// A file with its precompressed siblings.
#[derive(Debug)]
pub(super) struct Resource {
    /// The file itself, then its siblings.
    pub(super) variants: Vec<Variant>,
    pub(super) content_type: Cow<'static, str>,
    /// When it was last compared with what is on the disk.
    pub(super) checked_at: Cell<Instant>,
}

/// One file.
#[derive(Debug)]
pub(super) struct Variant {
    pub(super) coding: Option<Coding>,
    pub(super) stamp: Stamp,
    /// Strong, with its quotes.
    pub(super) etag: String,
    /// The fields of a response with all of it.
    pub(super) whole: Rc<ReadyFields>,
    /// Those of a response with parts of it: what `whole` has but its type.
    pub(super) parts: Rc<ReadyFields>,
    /// Those of a response that says that it hasn't changed.
    pub(super) not_modified: Rc<ReadyFields>,
    /// What it holds, once that was asked for.
    pub(super) kept: RefCell<Option<Kept>>,
}

/// What a file holds, in memory.
#[derive(Clone, Debug)]
pub(super) enum Kept {
    /// Copied into each send.
    Bytes(Bytes),
    /// Sent in place; with a token, by which those that are open are counted.
    File(Rc<OwnedFd>, Rc<()>),
}

/// What tells two versions of a file apart.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Stamp {
    device: u64,
    inode: u64,
    pub(super) length: u64,
    seconds: i64,
    nanos: i64,
    changed_seconds: i64,
    changed_nanos: i64,
}

impl Stamp {
    pub(super) fn of(metadata: &Metadata) -> Stamp {
        Stamp {
            device: metadata.dev(),
            inode: metadata.ino(),
            length: metadata.len(),
            seconds: metadata.mtime(),
            nanos: metadata.mtime_nsec(),
            changed_seconds: metadata.ctime(),
            changed_nanos: metadata.ctime_nsec(),
        }
    }

    /// Of inode, size and modification: it changes with each of them.
    fn etag(&self) -> String {
        let Stamp { inode, length, seconds, nanos, .. } = self;
        format!("\"{inode:x}-{length:x}-{seconds:x}.{nanos:x}\"")
    }

    /// In whole seconds, as HTTP has them.
    pub(super) fn modified(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(self.seconds.try_into().unwrap_or(0))
    }

    /// Whether the file was changed in the second that begins so many seconds after 1970, or in
    /// the one before: it may change once more without a trace, as clocks of file systems tick
    /// every few milliseconds.
    pub(super) fn is_recent(&self, unix_seconds: u64) -> bool {
        let now = i64::try_from(unix_seconds).unwrap_or(i64::MAX);
        self.seconds.max(self.changed_seconds) >= now - 1
    }

    /// Whether it was last modified no earlier than the other.
    pub(super) fn is_as_new_as(&self, other: &Stamp) -> bool {
        (self.seconds, self.nanos) >= (other.seconds, other.nanos)
    }
}

impl Resource {
    /// The file of this name, and the siblings that there are.
    ///
    /// # Errors
    ///
    /// Its name has no place in a field.
    pub(super) fn new(
        name: &str,
        found: impl IntoIterator<Item = (Option<Coding>, Stamp)>,
        rules: &Rules,
        varies: bool,
        now: Instant,
    ) -> Result<Resource, EncodeError> {
        let content_type = Rules::content_type(name);
        let variants = found
            .into_iter()
            .map(|(coding, stamp)| Variant::new(name, coding, stamp, &content_type, rules, varies));
        let variants = variants.collect::<Result<_, EncodeError>>()?;
        Ok(Resource { variants, content_type, checked_at: Cell::new(now) })
    }

    /// Whether these are the files that it was made of.
    pub(super) fn is_of(&self, found: &[(Option<Coding>, Stamp)]) -> bool {
        let mine = self.variants.iter().map(|variant| (variant.coding, variant.stamp));
        mine.eq(found.iter().copied())
    }

    /// Bytes that it takes beside those of its files.
    pub(super) fn weight(&self) -> usize {
        self.variants.len() * 1024
    }
}

impl Variant {
    fn new(
        name: &str,
        coding: Option<Coding>,
        stamp: Stamp,
        content_type: &str,
        rules: &Rules,
        varies: bool,
    ) -> Result<Variant, EncodeError> {
        let etag = stamp.etag();
        let modified = httpdate::fmt_http_date(stamp.modified());
        let cache_control = rules.cache_control(name);
        let disposition = rules
            .is_download(name)
            .then(|| disposition::attachment(name.rsplit_once('/').map_or(name, |(_, last)| last)));
        // What a 304 has to repeat (RFC 9110 section 15.4.5), then what it need not.
        let validating = [
            Some(("ETag", etag.as_str())),
            varies.then_some(("Vary", "Accept-Encoding")),
            cache_control.map(|value| ("Cache-Control", value)),
        ];
        let describing = [
            Some(("Last-Modified", modified.as_str())),
            Some(("Accept-Ranges", "bytes")),
            coding.map(|coding| ("Content-Encoding", coding.name())),
            disposition.as_deref().map(|value| ("Content-Disposition", value)),
        ];
        let typed = [Some(("Content-Type", content_type))];
        let ready = |parts: &[&[Option<(&str, &str)>]]| {
            let fields = parts.iter().copied().flatten().flatten().copied();
            ReadyFields::encode(fields).map(Rc::new)
        };
        Ok(Variant {
            whole: ready(&[&typed, &validating, &describing])?,
            parts: ready(&[&validating, &describing])?,
            not_modified: ready(&[&validating])?,
            coding,
            stamp,
            etag,
            kept: RefCell::default(),
        })
    }
}
