//! From a file that was found to the response: coding, conditions, ranges.

use std::io;
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;

use super::Files;
use super::conditional::{Fields, Validators, Verdict, values};
use super::range::{self, Ranges};
use super::resource::{Kept, Resource, Variant};
use crate::app::coding::negotiate;
use crate::errands;
use crate::http::body::{Body, Piece, Pieces};
use crate::http::{Method, Request, Response, Status};

/// Descriptors that are kept, of the 64 that a worker leaves for what isn't a connection. Files
/// beyond them are opened whenever they are asked for.
const OPEN_FILES_MAX: usize = 32;

/// Where a file's bytes are.
enum Content {
    Bytes(Bytes),
    File(Rc<OwnedFd>),
    /// Not needed.
    None,
}

impl Files {
    /// The answer, unless a file has to be read for it.
    pub(super) fn answer_from_memory(resource: &Resource, request: &Request) -> Option<Response> {
        let fields = Fields::of(request);
        let variant = &resource.variants[choose(resource, fields, request)];
        let verdict = evaluate(variant, fields, request);
        let content = match &*variant.kept.borrow() {
            Some(kept) => Content::of(kept),
            None if is_without_content(verdict, request) => Content::None,
            None => return None,
        };
        Some(respond(resource, variant, verdict, &content, request))
    }

    /// The answer, with files that were opened; none if one has changed meanwhile.
    pub(super) async fn answer_from_files(
        &self,
        name: &str,
        resource: &Rc<Resource>,
        opened: Vec<Rc<OwnedFd>>,
        request: &Request,
    ) -> io::Result<Option<Response>> {
        let fields = Fields::of(request);
        let at = choose(resource, fields, request);
        let (variant, file) = (&resource.variants[at], &opened[at]);
        let verdict = evaluate(variant, fields, request);
        let known = variant.kept.borrow().clone();
        errands::count_cache(known.is_some());
        let content = match known {
            _ if is_without_content(verdict, request) => Content::None,
            Some(kept) => Content::of(&kept),
            None => {
                let kept = self.knows(name, resource);
                let content = if variant.stamp.length <= self.limits.file_bytes_max && kept {
                    let Some(bytes) = Files::read(file, variant.stamp).await? else {
                        return Ok(None);
                    };
                    Kept::Bytes(bytes)
                } else {
                    Kept::File(Rc::clone(file), Rc::clone(&self.open))
                };
                if kept && self.may_keep(name, resource, &content) {
                    variant.kept.replace(Some(content.clone()));
                }
                Content::of(&content)
            }
        };
        Ok(Some(respond(resource, variant, verdict, &content, request)))
    }
}

impl Files {
    /// Whether the cache knows this resource still.
    fn knows(&self, name: &str, resource: &Rc<Resource>) -> bool {
        self.cache.borrow_mut().find(name).is_some_and(|known| Rc::ptr_eq(known, resource))
    }

    /// Whether there is room for what a variant holds.
    fn may_keep(&self, name: &str, resource: &Rc<Resource>, kept: &Kept) -> bool {
        match kept {
            Kept::Bytes(bytes) => self.cache.borrow_mut().add_weight(name, resource, bytes.len()),
            Kept::File(_, open) => Rc::strong_count(open) - 2 < OPEN_FILES_MAX, // ours, and this one
        }
    }
}

/// Which variant the client wants.
fn choose(resource: &Resource, fields: Fields, request: &Request) -> usize {
    if !fields.accept_encoding || resource.variants.len() == 1 {
        return 0;
    }
    let accepted = values(request, "accept-encoding").collect::<Vec<_>>();
    let offered = resource.variants.iter().filter_map(|variant| variant.coding);
    let coding = negotiate(&accepted.into_iter(), offered);
    resource.variants.iter().position(|variant| variant.coding == coding).unwrap_or(0)
}

fn evaluate(variant: &Variant, fields: Fields, request: &Request) -> Verdict {
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(errands::unix_seconds());
    let modified = variant.stamp.modified();
    let is_date_strong = modified + Duration::from_secs(1) <= now;
    fields.evaluate(request, Validators { etag: &variant.etag, modified, is_date_strong })
}

fn is_without_content(verdict: Verdict, request: &Request) -> bool {
    !matches!(verdict, Verdict::Proceed { .. }) || request.method() == Method::Head
}

fn respond(
    resource: &Resource,
    variant: &Variant,
    verdict: Verdict,
    content: &Content,
    request: &Request,
) -> Response {
    let length = variant.stamp.length;
    let ranges = match verdict {
        Verdict::Failed => return Response::plain(Status::PRECONDITION_FAILED),
        Verdict::NotModified => {
            let fields = Rc::clone(&variant.not_modified);
            return Response::ready(Body::empty(), fields).with_status(Status::NOT_MODIFIED);
        }
        Verdict::Proceed { range: false } => Ranges::Whole,
        Verdict::Proceed { range: true } => {
            let mut fields = values(request, "range");
            match (fields.next(), fields.next()) {
                (Some(field), None) => range::parse(field, length),
                _ => Ranges::Whole,
            }
        }
    };
    match ranges {
        Ranges::Whole => Response::ready(content.part(0..length), Rc::clone(&variant.whole)),
        Ranges::Unsatisfiable => Response::plain(Status::RANGE_NOT_SATISFIABLE)
            .with_header("Content-Range", format!("bytes */{length}")),
        Ranges::Parts(parts) if parts.len() == 1 => {
            let part = parts[0].clone();
            let content_range = content_range(&part, length);
            Response::ready(content.part(part), Rc::clone(&variant.whole))
                .with_status(Status::PARTIAL_CONTENT)
                .with_header("Content-Range", content_range)
        }
        Ranges::Parts(parts) => {
            let boundary = boundary();
            let pieces = multipart(&parts, length, &boundary, &resource.content_type, content);
            Response::ready(pieces, Rc::clone(&variant.parts))
                .with_status(Status::PARTIAL_CONTENT)
                .with_content_type(format!("multipart/byteranges; boundary={boundary}"))
        }
    }
}

impl Content {
    fn of(kept: &Kept) -> Content {
        match kept {
            Kept::Bytes(bytes) => Content::Bytes(bytes.clone()),
            Kept::File(file, _) => Content::File(Rc::clone(file)),
        }
    }

    fn part(&self, range: Range<u64>) -> Body {
        match self {
            Content::Bytes(bytes) if range.end - range.start == bytes.len() as u64 => {
                Body::from(bytes.clone())
            }
            Content::Bytes(bytes) => {
                Body::from(bytes.slice(range.start as usize..range.end as usize))
            }
            Content::File(file) => Body::part_of(Rc::clone(file), range),
            Content::None => Body::of_length(range.end - range.start),
        }
    }
}

fn content_range(part: &Range<u64>, length: u64) -> String {
    format!("bytes {}-{}/{length}", part.start, part.end - 1)
}

/// RFC 9110 section 14.6.
fn multipart(
    parts: &[Range<u64>],
    length: u64,
    boundary: &str,
    content_type: &str,
    content: &Content,
) -> Body {
    let mut pieces = Pieces::default();
    for (number, part) in parts.iter().enumerate() {
        let separator = if number == 0 { "" } else { "\r\n" };
        let content_range = content_range(part, length);
        let head = format!(
            "{separator}--{boundary}\r\nContent-Type: {content_type}\r\n\
             Content-Range: {content_range}\r\n\r\n"
        );
        pieces.push(Piece::Bytes(head.into()));
        pieces.push(match content {
            Content::Bytes(bytes) => {
                Piece::Bytes(bytes.slice(part.start as usize..part.end as usize))
            }
            Content::File(file) => Piece::of(Rc::clone(file), part),
            Content::None => unreachable!("only a GET has ranges"),
        });
    }
    pieces.push(Piece::Bytes(format!("\r\n--{boundary}--\r\n").into()));
    Body::from(pieces)
}

/// 128 bits that nobody who writes a file can guess, so that no file holds them.
fn boundary() -> String {
    use std::hash::{BuildHasher, RandomState};
    let random = || RandomState::new().hash_one(());
    format!("{:016x}{:016x}", random(), random())
}
