//! Sorting, compiled once. Pure.
//!
//! The standard library's sort is about 5 KB of machine code for each type that is sorted, and there were twelve of them. Here
//! places are sorted in place of the things, whatever those are.

/// The smallest key first. Things with the same key stay in their order.
pub fn by_key<T>(things: impl IntoIterator<Item = T>, key: impl Fn(&T) -> u64) -> Vec<T> {
    let mut things: Vec<Option<T>> = things.into_iter().map(Some).collect();
    let keys = things.iter().map(|thing| thing.as_ref().map_or(0, &key));
    let mut places: Vec<(u64, usize)> = keys.enumerate().map(|(place, key)| (key, place)).collect();
    places.sort_unstable();
    places.into_iter().filter_map(|(_, place)| things.get_mut(place)?.take()).collect()
}

/// The largest key first. Things with the same key stay in their order.
pub fn by_key_reversed<T>(things: impl IntoIterator<Item = T>, key: impl Fn(&T) -> usize) -> Vec<T> {
    by_key(things, |thing| u64::MAX - key(thing) as u64)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{Random, check_property};

    #[test]
    fn it_sorts_as_the_standard_library_does() {
        check_property(300, |random: &mut Random| {
            let things: Vec<(usize, usize)> = (0..random.below(60)).map(|place| (random.below(9), place)).collect();
            let (mut up, mut down) = (things.clone(), things.clone());
            up.sort_by_key(|(key, _)| *key);
            down.sort_by_key(|(key, _)| std::cmp::Reverse(*key));
            assert_eq!(by_key(things.clone(), |(key, _)| *key as u64), up);
            assert_eq!(by_key_reversed(things, |(key, _)| *key), down);
        });
    }
}
