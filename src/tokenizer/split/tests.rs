thread_local! { pub static LOOKS: std::cell::Cell<usize> = const { std::cell::Cell::new(0) }; }
