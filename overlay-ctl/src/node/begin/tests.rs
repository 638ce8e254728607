//! The time by which generations are numbered.

use super::*;
use std::time::Duration;

#[test]
fn a_clock_that_can_not_be_right_numbers_no_generation() {
    let at = |seconds| checked(UNIX_EPOCH + Duration::from_secs(seconds));
    for right in [EARLIEST, 1_796_000_000, LATEST] {
        assert_eq!(at(right), Ok(right));
    }
    for (wrong, year) in [(0, 1970), (1_719_000_000, 2024), (LATEST + 1, 2106), (1 << 40, 36_812)] {
        assert_eq!(at(wrong), Err(ClockError { year }), "{wrong}");
    }
    assert!(at(EARLIEST - 1).is_err());
    assert_eq!(checked(UNIX_EPOCH - Duration::from_secs(1)), Err(ClockError { year: 1970 }));
    let said = at(12).unwrap_err().to_string();
    assert!(
        said.starts_with("this host's clock is wrong, which says that it is the year 1970: "),
        "{said}"
    );
}

/// A clock that was ahead when the last one began, or was set back since.
#[test]
fn a_clock_that_was_set_back_numbers_a_later_generation_all_the_same() {
    let first = crate::model::Generation::FIRST;
    let [before, after] = [1_796_000_000, 1_796_000_000 - 7_200];
    let second = first.next(checked(UNIX_EPOCH + Duration::from_secs(before)).unwrap());
    let third = second.next(checked(UNIX_EPOCH + Duration::from_secs(after)).unwrap());
    assert_eq!((second.number(), third.number()), (before, before + 1));
}
