//! What travels beside descriptors between master and worker: what they are, in the fewest bytes.
//! Sends and receives nothing.

/// Descriptors in one packet: as many as the kernel takes (`SCM_MAX_FD`).
pub(crate) const DESCRIPTORS_MAX: usize = uring_ring::FDS_MAX;

/// Connections that are handed over in one packet: fewer than fit, since whoever receives a packet
/// needs that many descriptors free, for every line that it listens to.
pub(crate) const HANDED_OVER_MAX: usize = 16;

/// Where a connection comes from.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Origin {
    /// It was accepted just now, and has brought no request yet.
    Accepted,
    /// Another worker served it, and it idles.
    HandedOver,
}

/// What the descriptors of one packet are, in their order.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) enum Parcel {
    /// Connections, numbered from `first` on.
    Connections { first: u64, origins: Vec<Origin> },
    /// Listening sockets that nobody else serves now.
    Listeners,
}

const CONNECTIONS: u8 = 1;
const LISTENERS: u8 = 2;
/// A kind, and the first number.
const HEAD_BYTES: usize = 1 + 8;
/// Bytes of the longest parcel.
const BYTES_MAX: usize = HEAD_BYTES + DESCRIPTORS_MAX;

impl Parcel {
    pub(crate) fn encode(&self) -> Vec<u8> {
        match self {
            Parcel::Connections { first, origins } => {
                let mut bytes = Vec::with_capacity(HEAD_BYTES + origins.len());
                bytes.push(CONNECTIONS);
                bytes.extend_from_slice(&first.to_le_bytes());
                bytes.extend(origins.iter().map(|origin| *origin as u8));
                bytes
            }
            Parcel::Listeners => vec![LISTENERS],
        }
    }

    /// None for what no [`encode`](Parcel::encode) has written.
    pub(crate) fn decode(bytes: &[u8]) -> Option<Parcel> {
        match bytes.split_first()? {
            (&CONNECTIONS, rest) => {
                let (first, origins) = rest.split_first_chunk()?;
                let origin = |byte: &u8| match byte {
                    0 => Some(Origin::Accepted),
                    1 => Some(Origin::HandedOver),
                    _ => None,
                };
                let origins = origins.iter().map(origin).collect::<Option<_>>()?;
                Some(Parcel::Connections { first: u64::from_le_bytes(*first), origins })
            }
            (&LISTENERS, []) => Some(Parcel::Listeners),
            _ => None,
        }
    }

    /// Room for any parcel.
    pub(crate) fn read_buffer() -> Vec<u8> {
        Vec::with_capacity(BYTES_MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_parcel_reads_itself_and_no_cut_of_it_does() {
        let origins = vec![Origin::Accepted, Origin::HandedOver];
        for parcel in [Parcel::Connections { first: u64::MAX - 5, origins }, Parcel::Listeners] {
            let bytes = parcel.encode();
            assert!(bytes.len() <= Parcel::read_buffer().capacity());
            assert_eq!(Parcel::decode(&bytes), Some(parcel));
            assert_eq!(Parcel::decode(&bytes[..bytes.len().min(HEAD_BYTES) - 1]), None);
        }
        assert_eq!(Parcel::decode(&[9]), None);
        assert_eq!(Parcel::decode(&[CONNECTIONS, 0, 0, 0, 0, 0, 0, 0, 0, 2]), None);
    }
}
