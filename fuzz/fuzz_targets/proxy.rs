//! Headers of the PROXY protocol: more of the same bytes changes no verdict, and what is taken lies
//! within its bounds.

#![no_main]

use libfuzzer_sys::fuzz_target;
use uring_pool::proto::proxy::{ProxyHeader, V1_BYTES_MAX, V2_BYTES_MAX, parse_proxy_header};

fuzz_target!(|bytes: &[u8]| {
    let whole = parse_proxy_header(bytes);
    for cut in 0..bytes.len() {
        let part = parse_proxy_header(&bytes[..cut]);
        assert!(part == Ok(None) || part == whole, "{cut}: {part:?} before {whole:?}");
    }
    match whole {
        Ok(Some((header, len))) => {
            let is_v1 = bytes[0] == b'P';
            assert!(len <= bytes.len() && len <= if is_v1 { V1_BYTES_MAX } else { V2_BYTES_MAX });
            assert!(!is_v1 || bytes[..len].ends_with(b"\r\n"));
            if let ProxyHeader::Proxied(Some(route)) = header {
                assert_eq!(route.source.is_ipv4(), route.destination.is_ipv4());
            }
        }
        Ok(None) => assert!(bytes.len() < V2_BYTES_MAX),
        Err(_) => {}
    }
});
