//! A page that shows what is in a directory. Knows no requests.
//!
//! It names nothing that wouldn't be served: no dotfiles, nothing but files and directories, and
//! symbolic links only as such. The directory is read in place, as there is no ring operation for
//! it, so the number of entries is bounded.

use std::fmt::Write as _;
use std::fs::File;
use std::io;
use std::time::{Duration, SystemTime};

use nix::dir::{Dir, Type};
use nix::fcntl::AtFlags;
use nix::sys::stat::{SFlag, fstatat};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_decode_str, utf8_percent_encode};

use crate::http::Response;

/// Entries of a page. There is a line about more.
const ENTRIES_MAX: usize = 5_000;

/// What a name in a link may have as it is (RFC 3986 section 2.3).
const UNRESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Nothing but the page's own style.
const POLICY: &str =
    "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'";

const STYLE: &str = include_str!("listing.css");

struct Entry {
    name: String,
    is_directory: bool,
    /// Unknown of symbolic links: they aren't followed for this.
    length: Option<u64>,
    modified: SystemTime,
}

/// The page of an open directory, asked for by this path.
pub(super) fn page(directory: File, path: &str) -> io::Result<Response> {
    let (entries, is_cut) = read(directory)?;
    let path = percent_decode_str(path).decode_utf8_lossy();
    let html = render(&path, &entries, is_cut);
    Ok(Response::html(html)
        .with_header("Cache-Control", "no-cache")
        .with_header("Content-Security-Policy", POLICY))
}

fn read(directory: File) -> io::Result<(Vec<Entry>, bool)> {
    let mut directory = Dir::from_fd(directory.into())?;
    let mut names = Vec::new();
    let mut is_cut = false;
    for entry in directory.iter() {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        let is_special = matches!(
            entry.file_type(),
            Some(Type::Fifo | Type::Socket | Type::CharacterDevice | Type::BlockDevice)
        );
        if name.starts_with('.') || is_special {
            continue;
        }
        if names.len() == ENTRIES_MAX {
            is_cut = true;
            break;
        }
        names.push(name.to_owned());
    }
    let mut entries = Vec::with_capacity(names.len());
    for name in names {
        // One that has gone meanwhile is left out.
        let Ok(stat) = fstatat(&directory, name.as_str(), AtFlags::AT_SYMLINK_NOFOLLOW) else {
            continue;
        };
        let kind = SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits());
        let seconds = u64::try_from(stat.st_mtime).unwrap_or(0);
        entries.push(Entry {
            name,
            is_directory: kind == SFlag::S_IFDIR,
            length: (kind == SFlag::S_IFREG).then(|| stat.st_size.unsigned_abs()),
            modified: SystemTime::UNIX_EPOCH + Duration::from_secs(seconds),
        });
    }
    entries.sort_by_cached_key(|entry| (!entry.is_directory, entry.name.to_lowercase()));
    Ok((entries, is_cut))
}

fn render(path: &str, entries: &[Entry], is_cut: bool) -> String {
    let mut html = String::with_capacity(4 * 1024 + 300 * entries.len());
    let title = Escaped(path);
    write!(
        html,
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
         <meta name=\"color-scheme\" content=\"light dark\">\n\
         <title>{title}</title>\n<style>\n{STYLE}</style>\n<main>\n<h1>"
    )
    .expect("a string takes everything");
    breadcrumbs(&mut html, path);
    let directories = entries.iter().filter(|entry| entry.is_directory).count();
    let files = entries.len() - directories;
    let total: u64 = entries.iter().filter_map(|entry| entry.length).sum();
    write!(html, "</h1>\n<p class=\"sum\">{}", count(directories, "folder", "folders"))
        .and_then(|()| write!(html, ", {}", count(files, "file", "files")))
        .and_then(|()| if total > 0 { write!(html, ", {}", size(total)) } else { Ok(()) })
        .expect("a string takes everything");
    html.push_str("</p>\n");
    if is_cut {
        writeln!(html, "<p class=\"sum\">These are {ENTRIES_MAX} of more.</p>")
            .expect("a string takes everything");
    }
    html.push_str(
        "<table>\n<thead><tr><th scope=\"col\">Name</th><th scope=\"col\">Size</th>\
         <th scope=\"col\">Modified</th></tr></thead>\n<tbody>\n",
    );
    if !path.trim_matches('/').is_empty() {
        html.push_str(
            "<tr class=\"up\"><td><a href=\"../\"><i></i>Parent folder</a></td><td></td><td></td></tr>\n",
        );
    }
    for entry in entries {
        row(&mut html, entry);
    }
    html.push_str("</tbody>\n</table>\n");
    if entries.is_empty() {
        html.push_str("<p class=\"none\">Nothing here.</p>\n");
    }
    html.push_str("</main>\n</html>\n");
    html
}

/// The path with a link for each directory above.
fn breadcrumbs(html: &mut String, path: &str) {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let up = |levels: usize| if levels == 0 { "./".to_owned() } else { "../".repeat(levels) };
    let mut crumb = |name: &str, levels: usize| {
        let name = Escaped(name);
        if levels == 0 {
            write!(html, "<b>{name}</b>")
        } else {
            write!(html, "<a href=\"{}\">{name}</a><s>/</s>", up(levels))
        }
        .expect("a string takes everything");
    };
    crumb("Home", parts.len());
    for (number, part) in parts.iter().enumerate() {
        crumb(part, parts.len() - 1 - number);
    }
}

fn row(html: &mut String, entry: &Entry) {
    let slash = if entry.is_directory { "/" } else { "" };
    let class = if entry.is_directory { "folder" } else { "file" };
    // `./` since a name may look like a scheme.
    let link = utf8_percent_encode(&entry.name, UNRESERVED);
    let name = Escaped(&entry.name);
    let length = entry.length.map(size).unwrap_or_default();
    let modified = day(entry.modified);
    writeln!(
        html,
        "<tr class=\"{class}\"><td><a href=\"./{link}{slash}\"><i></i>{name}{slash}</a></td>\
         <td>{length}</td><td>{modified}</td></tr>"
    )
    .expect("a string takes everything");
}

fn count(count: usize, one: &str, many: &str) -> String {
    format!("{count} {}", if count == 1 { one } else { many })
}

/// In a unit of which there are less than 1024, with one decimal where it says something.
#[expect(clippy::cast_precision_loss, reason = "three digits of it are shown")]
fn size(bytes: u64) -> String {
    const UNITS: [&str; 5] = ["KiB", "MiB", "GiB", "TiB", "PiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    let mut unit = 0;
    while value >= 1023.95 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let decimals = usize::from(value < 99.95);
    format!("{value:.decimals$} {}", UNITS[unit])
}

/// `2026-03-01 12:34`, in UTC.
fn day(time: SystemTime) -> String {
    // `Sun, 06 Nov 1994 08:49:37 GMT`, RFC 9110 section 5.6.7.
    let text = httpdate::fmt_http_date(time);
    const MONTHS: &str = "JanFebMarAprMayJunJulAugSepOctNovDec";
    let month = MONTHS.find(&text[8..11]).map_or(0, |at| at / 3 + 1);
    format!("{}-{month:02}-{} {}", &text[12..16], &text[5..7], &text[17..22])
}

/// Text as HTML shows it, in an element or a quoted attribute.
struct Escaped<'a>(&'a str);

impl std::fmt::Display for Escaped<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut rest = self.0;
        while let Some(at) = rest.find(['&', '<', '>', '"', '\'']) {
            f.write_str(&rest[..at])?;
            f.write_str(match rest.as_bytes()[at] {
                b'&' => "&amp;",
                b'<' => "&lt;",
                b'>' => "&gt;",
                b'"' => "&quot;",
                _ => "&#39;",
            })?;
            rest = &rest[at + 1..];
        }
        f.write_str(rest)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(name: &str, length: Option<u64>) -> Entry {
        let modified = SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777);
        Entry { name: name.to_owned(), is_directory: length.is_none(), length, modified }
    }

    #[test]
    fn names_are_shown_and_linked_whatever_is_in_them() {
        let names =
            ["<script>alert(1)</script>", "a b?c#d.txt", "javascript:x", "\u{20ac}", "a\"'&"];
        let entries: Vec<Entry> = names.iter().map(|name| entry(name, Some(1))).collect();
        let html = render("/<b>/x", &entries, false);
        assert!(!html.contains("<script>") && !html.contains("<b>/") && !html.contains("\"'&"));
        assert!(html.contains("&lt;script&gt;alert(1)&lt;/script&gt;"));
        assert!(html.contains("href=\"./a%20b%3Fc%23d.txt\""));
        assert!(html.contains("href=\"./javascript%3Ax\""));
        assert!(html.contains("href=\"./%E2%82%AC\""));
    }

    #[test]
    fn every_directory_above_is_a_link() {
        let html = render("/a/b/", &[entry("c", None)], true);
        for part in [
            "<a href=\"../../\">Home</a>",
            "<a href=\"../\">a</a>",
            "<b>b</b>",
            "Parent folder",
            "href=\"./c/\"",
            "1 folder, 0 files",
            "of more",
            "1994-11-06 08:49",
        ] {
            assert!(html.contains(part), "no {part} in {html}");
        }
        let root = render("/", &[], false);
        assert!(
            root.contains("<b>Home</b>") && !root.contains("Parent") && root.contains("Nothing")
        );
    }

    #[test]
    fn sizes_have_three_digits_at_most() {
        for (bytes, text) in [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.0 KiB"),
            (10_240, "10.0 KiB"),
            (102_400, "100 KiB"),
            (1_048_575, "1.0 MiB"),
            (5_000_000_000, "4.7 GiB"),
            (u64::MAX, "16384 PiB"),
        ] {
            assert_eq!(size(bytes), text);
        }
    }
}
