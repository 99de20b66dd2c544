//! libFuzzer in this process, on one target.

#[cfg(not(feature = "libfuzzer"))]
pub(crate) fn fuzz(_: &'static swarm_fuzz::Target, _: Vec<String>) -> anyhow::Result<()> {
    anyhow::bail!("this build has no libFuzzer in it: tests/fuzz/run makes one that has")
}

#[cfg(feature = "libfuzzer")]
pub(crate) use with::fuzz;

#[cfg(feature = "libfuzzer")]
mod with {
    use std::{
        ffi::{CString, c_char, c_int},
        sync::{Mutex, OnceLock},
    };

    use libfuzzer_sys as _;
    use swarm_fuzz::{Cost, Target};

    type Call = extern "C" fn(*const u8, usize) -> c_int;

    // SAFETY: so it is declared in the library that `libfuzzer_sys` links (FuzzerInterface.h).
    unsafe extern "C" {
        fn LLVMFuzzerRunDriver(argc: *mut c_int, argv: *mut *mut *mut c_char, call: Call) -> c_int;
    }

    static TARGET: OnceLock<&'static Target> = OnceLock::new();
    static MOST: Mutex<Cost> = Mutex::new(Cost { memory: 0, time: std::time::Duration::ZERO });

    extern "C" fn call(data: *const u8, len: usize) -> c_int {
        // SAFETY: libFuzzer gives so many bytes, which are there until this returns; none of them may come with no pointer at all.
        let bytes = if len == 0 { &[] } else { unsafe { std::slice::from_raw_parts(data, len) } };
        if let Some(target) = TARGET.get() {
            note(target.judge(bytes));
        }
        0
    }

    /// Says it where an input took more than every one before it.
    fn note(cost: Cost) {
        let Ok(mut most) = MOST.lock() else { return };
        if cost.memory > most.memory || cost.time > most.time {
            *most = Cost { memory: most.memory.max(cost.memory), time: most.time.max(cost.time) };
            eprintln!("cost: {} us {} bytes", most.time.as_micros(), most.memory);
        }
    }

    /// Ends the process when it has ended.
    pub(crate) fn fuzz(target: &'static Target, arguments: Vec<String>) -> anyhow::Result<()> {
        let tell = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            tell(panic);
            // which libFuzzer sees, and keeps the input
            std::process::abort();
        }));
        let _ = TARGET.set(target);
        let words: Vec<CString> = arguments.into_iter().map(CString::new).collect::<Result<_, _>>()?;
        let mut words: Vec<*mut c_char> = words.into_iter().map(CString::into_raw).collect();
        let mut count = c_int::try_from(words.len())?;
        words.push(std::ptr::null_mut());
        let mut words = words.as_mut_ptr();
        // SAFETY: as many words as it says, and a null behind them, all of them for as long as the process lives.
        let code = unsafe { LLVMFuzzerRunDriver(&raw mut count, &raw mut words, call) };
        std::process::exit(code)
    }
}
