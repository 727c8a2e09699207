//! Bodies from `-d` and `-F`, as curl has them. Reads the files that they name.

use std::fmt::Write as _;
use std::fs;
use std::io::{self, Read as _};

use base64::Engine as _;
use base64::prelude::BASE64_STANDARD as STANDARD;

use super::PlanError;

/// Between the parts of a form; long and odd enough not to occur in them, and checked.
const BOUNDARY: &str = "----uring-pool-bench-7b1f0c9e53d84a26";

/// A body, its type, and the type's parameter.
pub(super) type Body = (Vec<u8>, &'static str, String);

/// What `-d` says: several are joined by `&`; `@file` is the content of a file, as it is, and `@-`
/// what comes from standard input.
pub(super) fn data(parts: &[String]) -> Result<Body, PlanError> {
    let mut body = Vec::new();
    for (index, part) in parts.iter().enumerate() {
        if index > 0 {
            body.push(b'&');
        }
        match part.strip_prefix('@') {
            Some(file) => body.extend(read(file, "-d")?),
            None => body.extend_from_slice(part.as_bytes()),
        }
    }
    Ok((body, "application/x-www-form-urlencoded", String::new()))
}

/// What `-F` says: `name=text`, `name=@file` (an upload, of the type that `;type=…` says or that its
/// name suggests), `name=<file` (its content).
pub(super) fn form(parts: &[String]) -> Result<Body, PlanError> {
    let mut body = Vec::new();
    for part in parts {
        let Some((name, value)) = part.split_once('=') else {
            return Err(PlanError::flag("-F", part, "write name=text, name=@file or name=<file"));
        };
        let mut head = format!("--{BOUNDARY}\r\nContent-Disposition: form-data; name=\"");
        head.push_str(&quoted(name));
        head.push('"');
        let content = if let Some(file) = value.strip_prefix('@') {
            let (file, kind) = match file.rsplit_once(";type=") {
                Some((file, kind)) => (file, kind.to_owned()),
                None => (file, mime_guess::from_path(file).first_or_octet_stream().to_string()),
            };
            if !crate::proto::h1::is_field_value(kind.as_bytes()) {
                return Err(PlanError::flag("-F", part, "a type is a line of text"));
            }
            let base = file.rsplit('/').next().unwrap_or(file);
            let _ = write!(head, "; filename=\"{}\"\r\nContent-Type: {kind}", quoted(base));
            read(file, "-F")?
        } else if let Some(file) = value.strip_prefix('<') {
            read(file, "-F")?
        } else {
            value.as_bytes().to_vec()
        };
        if memchr::memmem::find(&content, BOUNDARY.as_bytes()).is_some() {
            return Err(PlanError::flag("-F", part, "it contains this program's form boundary"));
        }
        head.push_str("\r\n\r\n");
        body.extend_from_slice(head.as_bytes());
        body.extend_from_slice(&content);
        body.extend_from_slice(b"\r\n");
    }
    body.extend_from_slice(format!("--{BOUNDARY}--\r\n").as_bytes());
    Ok((body, "multipart/form-data", format!("; boundary={BOUNDARY}")))
}

/// As browsers write names of fields and files.
fn quoted(text: &str) -> String {
    text.replace('"', "%22").replace('\r', "%0D").replace('\n', "%0A")
}

fn read(file: &str, flag: &'static str) -> Result<Vec<u8>, PlanError> {
    let content = if file == "-" {
        let mut content = Vec::new();
        io::stdin().read_to_end(&mut content).map(|_| content)
    } else {
        fs::read(file)
    };
    content.map_err(|error| PlanError::flag(flag, file, &format!("cannot read it: {error}")))
}

/// Credentials as RFC 7617 has them.
pub(super) fn basic(user: &str) -> String {
    format!("Basic {}", STANDARD.encode(user))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn credentials_are_as_in_the_rfcs() {
        assert_eq!(basic("Aladdin:open sesame"), "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==");
        for (plain, coded) in
            [("", ""), ("f", "Zg=="), ("fo", "Zm8="), ("foo", "Zm9v"), ("foobar", "Zm9vYmFy")]
        {
            assert_eq!(basic(plain), format!("Basic {coded}"));
        }
    }

    #[test]
    fn data_is_joined_and_read_from_files() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(&file, b"from\na file").unwrap();
        let parts = ["a=b".to_owned(), format!("@{}", file.path().display())];
        assert_eq!(data(&parts).unwrap().0, b"a=b&from\na file");
        let missing = data(&["@/nowhere".into()]).unwrap_err().to_string();
        assert!(missing.contains("/nowhere") && missing.contains("cannot read"), "{missing}");
    }

    #[test]
    fn a_form_has_its_parts_between_boundaries() {
        let file = tempfile::Builder::new().suffix(".png").tempfile().unwrap();
        fs::write(&file, b"PNG").unwrap();
        let upload = format!("pic=@{}", file.path().display());
        let (body, kind, parameter) = form(&["a\"b=c".into(), upload]).unwrap();
        let text = String::from_utf8(body).unwrap();
        assert!(text.contains("name=\"a%22b\"\r\n\r\nc\r\n--"), "{text}");
        assert!(text.contains("Content-Type: image/png\r\n\r\nPNG\r\n--"), "{text}");
        assert!(text.ends_with("--\r\n") && parameter.ends_with(BOUNDARY));
        assert_eq!(kind, "multipart/form-data");
        assert!(form(&["x".into()]).is_err());
        let typed = format!("f=@{};type=text/x-odd", file.path().display());
        let text = String::from_utf8(form(&[typed]).unwrap().0).unwrap();
        assert!(text.contains("Content-Type: text/x-odd\r\n\r\nPNG"), "{text}");
    }
}
