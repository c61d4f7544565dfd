//! For tests only: a random generator that can be repeated, and a directory that goes away.
//!
//! A property test prints the seed of the case that failed; `TESTING_SEED` set to it runs that case first.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// A small random generator (splitmix64), the same numbers for the same seed everywhere.
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Random {
        Random(seed)
    }

    /// A number from 0 up to, not including, `end`.
    pub fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut mixed = self.0;
        mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        usize::try_from((mixed ^ (mixed >> 31)) % end.max(1) as u64).unwrap()
    }

    /// One of `choices`.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())]
    }
}

/// Runs `property` for `cases` seeds; a failing one prints its seed.
pub fn check_property(cases: u64, property: impl Fn(&mut Random) + std::panic::RefUnwindSafe) {
    let first = std::env::var("TESTING_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(1);
    for seed in first..first + cases {
        let result = std::panic::catch_unwind(|| property(&mut Random::new(seed)));
        if let Err(panic) = result {
            eprintln!("failed with TESTING_SEED={seed}");
            std::panic::resume_unwind(panic);
        }
    }
}

/// A new empty directory, removed with everything in it when dropped.
pub struct TestDirectory(PathBuf);

impl TestDirectory {
    pub fn new() -> TestDirectory {
        static COUNTER: AtomicU32 = AtomicU32::new(0);
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let path = std::env::temp_dir().join(format!("thoughtmesh-test-{}-{number}", std::process::id()));
        fs::create_dir_all(&path).unwrap();
        TestDirectory(path.canonicalize().unwrap())
    }

    pub fn path(&self) -> &Path {
        &self.0
    }

    /// The path of `name` in it.
    pub fn join(&self, name: impl AsRef<Path>) -> PathBuf {
        self.0.join(name)
    }

    /// Writes a file in it, with its parent directories.
    pub fn write(&self, name: impl AsRef<Path>, content: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, content).unwrap();
        path
    }
}

impl Drop for TestDirectory {
    fn drop(&mut self) {
        // A panicking test must not panic again here.
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Every case under `tests/golden/<format>/<case>/`, sorted, with its format's name.
pub fn golden_cases() -> Vec<(String, PathBuf)> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden");
    let folders = |path: &Path| {
        let mut paths: Vec<PathBuf> = fs::read_dir(path).unwrap().map(|entry| entry.unwrap().path()).collect();
        paths.retain(|path| path.is_dir());
        paths.sort();
        paths
    };
    let mut cases = Vec::new();
    for format in folders(&root) {
        let name = format.file_name().unwrap().to_str().unwrap().to_owned();
        cases.extend(folders(&format).into_iter().map(|case| (name.clone(), case)));
    }
    assert!(!cases.is_empty(), "no golden files");
    cases
}

/// Compares a value with the golden file, which is written anew when `UPDATE_GOLDEN` is set.
pub fn compare_golden(file: &Path, actual: &serde_json::Value) {
    let text = format!("{actual:#}\n");
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(file, &text).unwrap();
    }
    let golden = fs::read_to_string(file).unwrap_or_default();
    assert!(golden == text, "{} differs; got:\n{text}expected:\n{golden}", file.display());
}
