//! How long requests took, by when they were due: counts in a grid of fixed size.

use serde::{Deserialize, Serialize};

/// Columns: when there would be more, each becomes twice as wide.
const COLUMNS: usize = 256;
/// Rows: four for each power of two.
const PARTS_BITS: u32 = 2;
/// Below 2^10 ns (1.024 us) all is one row.
const SHORT_BITS: u32 = 10;
/// From 2^42 ns (73 minutes) on all is in the last row.
const LONG_BITS: u32 = 42;
const ROWS: usize = ((LONG_BITS - SHORT_BITS) << PARTS_BITS) as usize + 1;

/// A grid of counts: a column for each stretch of time in which requests were due, a row for each
/// size of response time. 132 KB. Requests without an answer are in it with what they waited.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Heat {
    /// Nanoseconds that a column spans.
    #[serde(deserialize_with = "sparse::width")]
    width: u64,
    /// Columns that have something in them, or one after them has.
    #[serde(deserialize_with = "sparse::columns")]
    columns: usize,
    /// The column of the last request, most likely also that of the next one: spares a division.
    #[serde(skip)]
    last: Last,
    #[serde(with = "sparse")]
    cells: Box<[u32]>,
}

#[derive(Clone, Copy, Default, Debug)]
struct Last {
    begin: u64,
    /// Nothing is in a column of no width.
    width: u64,
    column: usize,
}

impl Heat {
    /// An empty one, whose columns span `width` nanoseconds at first.
    pub fn new(width: u64) -> Heat {
        Heat {
            width,
            columns: 0,
            last: Last::default(),
            cells: vec![0; COLUMNS * ROWS].into_boxed_slice(),
        }
    }

    /// So many requests that were due at `intended` took `response` nanoseconds.
    #[inline]
    pub(super) fn record(&mut self, intended: u64, response: u64, count: u32) {
        if intended.wrapping_sub(self.last.begin) >= self.last.width {
            self.find(intended);
        }
        let cell = &mut self.cells[self.last.column * ROWS + row(response)];
        *cell = cell.saturating_add(count);
    }

    /// Nanoseconds that a column spans.
    pub fn width(&self) -> u64 {
        self.width
    }

    /// The columns from the run's begin on, each with its counts from the shortest times to the
    /// longest.
    pub fn columns(&self) -> impl ExactSizeIterator<Item = &[u32]> {
        self.cells.chunks_exact(ROWS).take(self.columns)
    }

    /// The least time of this row, in nanoseconds.
    pub fn row_begin(row: usize) -> u64 {
        let Some(above) = row.checked_sub(1) else { return 0 };
        let (octave, part) = (above >> PARTS_BITS, above & ((1 << PARTS_BITS) - 1));
        ((1 << PARTS_BITS) + part as u64) << (SHORT_BITS - PARTS_BITS + octave as u32)
    }

    /// How many rows there are.
    pub fn rows() -> usize {
        ROWS
    }

    /// The row of this time.
    pub fn row_of(nanos: u64) -> usize {
        row(nanos)
    }

    /// Adds what another one counted.
    pub fn add(&mut self, other: &Heat) {
        let mut other = other.clone();
        while self.width < other.width {
            self.coarsen();
        }
        while other.width < self.width {
            other.coarsen();
        }
        self.columns = self.columns.max(other.columns);
        for (cell, more) in self.cells.iter_mut().zip(&other.cells) {
            *cell = cell.saturating_add(*more);
        }
    }

    fn find(&mut self, intended: u64) {
        while intended / self.width >= COLUMNS as u64 {
            self.coarsen();
        }
        let column = (intended / self.width) as usize;
        self.last = Last { begin: column as u64 * self.width, width: self.width, column };
        self.columns = self.columns.max(column + 1);
    }

    /// Makes one column of two.
    fn coarsen(&mut self) {
        self.width *= 2;
        self.last = Last::default();
        for column in 0..COLUMNS {
            let (left, right) = (2 * column, 2 * column + 1);
            for row in 0..ROWS {
                let cell =
                    |column: usize| self.cells.get(column * ROWS + row).copied().unwrap_or(0);
                self.cells[column * ROWS + row] = cell(left).saturating_add(cell(right));
            }
        }
        self.columns = self.columns.div_ceil(2);
    }
}

impl PartialEq for Heat {
    fn eq(&self, other: &Heat) -> bool {
        (self.width, self.columns) == (other.width, other.columns) && self.cells == other.cells
    }
}

#[inline]
fn row(nanos: u64) -> usize {
    let nanos = nanos.min((1 << LONG_BITS) - 1);
    if nanos < 1 << SHORT_BITS {
        return 0;
    }
    let octave = nanos.ilog2();
    let part = (nanos >> (octave - PARTS_BITS)) & ((1 << PARTS_BITS) - 1);
    ((octave - SHORT_BITS) << PARTS_BITS) as usize + part as usize + 1
}

/// Cells as pairs of place and count, since most are zero.
mod sparse {
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serializer};

    use super::{COLUMNS, ROWS};

    pub(super) fn serialize<S: Serializer>(
        cells: &[u32],
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        let filled = cells.iter().enumerate().filter(|(_, count)| **count > 0);
        serializer.collect_seq(filled)
    }

    pub(super) fn width<'de, D: Deserializer<'de>>(deserializer: D) -> Result<u64, D::Error> {
        let width = u64::deserialize(deserializer)?;
        if width == 0 { Err(D::Error::custom("columns of no width")) } else { Ok(width) }
    }

    pub(super) fn columns<'de, D: Deserializer<'de>>(deserializer: D) -> Result<usize, D::Error> {
        let columns = usize::deserialize(deserializer)?;
        if columns > COLUMNS { Err(D::Error::custom("too many columns")) } else { Ok(columns) }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Box<[u32]>, D::Error> {
        let mut cells = vec![0; COLUMNS * ROWS].into_boxed_slice();
        for (place, count) in Vec::<(usize, u32)>::deserialize(deserializer)? {
            let cell = cells.get_mut(place);
            *cell.ok_or_else(|| D::Error::custom("a cell outside of the grid"))? = count;
        }
        Ok(cells)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_follow_each_other_without_a_gap() {
        for number in 1..ROWS {
            assert_eq!(row(Heat::row_begin(number)), number);
            assert_eq!(row(Heat::row_begin(number) - 1), number - 1);
        }
        assert_eq!((row(0), row(u64::MAX)), (0, ROWS - 1));
    }

    #[test]
    fn nothing_is_lost_when_columns_get_wider() {
        let mut heat = Heat::new(1_000);
        for number in 0..100_000 {
            heat.record(number * 100, 5_000, 1);
        }
        let counts: Vec<u32> = heat.columns().map(|column| column.iter().sum()).collect();
        assert_eq!(heat.width(), 64_000);
        assert_eq!(counts.iter().sum::<u32>(), 100_000);
        assert!(counts[..156].iter().all(|count| *count == 640), "{counts:?}");
        assert_eq!(counts.len(), 157);
    }

    #[test]
    fn two_of_different_widths_add_up() {
        let (mut narrow, mut wide) = (Heat::new(10), Heat::new(80));
        (0..200).for_each(|at| narrow.record(at, 1 << 20, 1));
        (0..400).for_each(|at| wide.record(at, 1 << 30, 1));
        let mut other = wide.clone();
        other.add(&narrow);
        narrow.add(&wide);
        assert_eq!(narrow, other);
        let sums: Vec<u32> = narrow.columns().map(|column| column.iter().sum()).collect();
        assert_eq!((narrow.width(), sums), (80, vec![160, 160, 120, 80, 80]));
    }

    #[test]
    fn it_reads_itself_again() {
        let mut heat = Heat::new(1_000_000);
        (0..500).for_each(|number| heat.record(number * 300_000, number * number * 1_000, 1));
        let text = serde_json::to_string(&heat).unwrap();
        assert_eq!(serde_json::from_str::<Heat>(&text).unwrap(), heat);
        assert!(
            serde_json::from_str::<Heat>(r#"{"width":1,"columns":1,"cells":[[99999,1]]}"#).is_err()
        );
    }
}
