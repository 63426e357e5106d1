;; Go's runtime is built for WASI. This gives it time and random numbers from Weir's own interfaces, and no files, arguments
;; or environment, so that the component imports what the plugin uses and nothing of WASI.
(module
  (import "weir:plugin/clock@0.1.0" "unix-ms" (func $unix_ms (result i64)))
  (import "weir:plugin/clock@0.1.0" "monotonic-ns" (func $monotonic_ns (result i64)))
  (import "weir:plugin/random@0.1.0" "next" (func $random (result i64)))
  (import "env" "memory" (memory 0))

  ;; While the host hands over arguments nothing may be imported, and yet the collector may run and ask for the time: it
  ;; gets the last one that was asked for.
  (global $paused (mut i32) (i32.const 0))
  (global $now (mut i64) (i64.const 0))
  (global $time_of_day (mut i64) (i64.const 0))

  (func (export "adapter_monotonic_clock_set_paused") (param $pause i32)
    (global.set $paused (local.get $pause)))

  ;; Clock 0 is the time of day, any other one only goes forward.
  (func (export "clock_time_get") (param $clock i32) (param $precision i64) (param $into i32) (result i32)
    (if (i32.eqz (local.get $clock))
      (then
        (if (i32.eqz (global.get $paused))
          (then (global.set $time_of_day (i64.mul (call $unix_ms) (i64.const 1000000)))))
        (i64.store (local.get $into) (global.get $time_of_day)))
      (else
        (if (i32.eqz (global.get $paused)) (then (global.set $now (call $monotonic_ns))))
        (i64.store (local.get $into) (global.get $now))))
    (i32.const 0))

  (func (export "random_get") (param $into i32) (param $length i32) (result i32)
    (local $bits i64)
    (loop $next
      (if (i32.eqz (local.get $length)) (then (return (i32.const 0))))
      (if (i32.eqz (i32.and (local.get $length) (i32.const 7))) (then (local.set $bits (call $random))))
      (i64.store8 (local.get $into) (local.get $bits))
      (local.set $bits (i64.shr_u (local.get $bits) (i64.const 8)))
      (local.set $into (i32.add (local.get $into) (i32.const 1)))
      (local.set $length (i32.sub (local.get $length) (i32.const 1)))
      (br $next))
    (unreachable))

  ;; No arguments and no variables.
  (func $none (param $count i32) (param $bytes i32) (result i32)
    (i32.store (local.get $count) (i32.const 0))
    (i32.store (local.get $bytes) (i32.const 0))
    (i32.const 0))
  (export "args_sizes_get" (func $none))
  (export "environ_sizes_get" (func $none))
  (func $empty (param i32 i32) (result i32) (i32.const 0))
  (export "args_get" (func $empty))
  (export "environ_get" (func $empty))

  ;; Whatever is written is taken, and read by nobody.
  (func (export "fd_write") (param $fd i32) (param $parts i32) (param $count i32) (param $written i32) (result i32)
    (local $sum i32)
    (loop $next
      (if (local.get $count)
        (then
          (local.set $sum (i32.add (local.get $sum) (i32.load offset=4 (local.get $parts))))
          (local.set $parts (i32.add (local.get $parts) (i32.const 8)))
          (local.set $count (i32.sub (local.get $count) (i32.const 1)))
          (br $next))))
    (i32.store (local.get $written) (local.get $sum))
    (i32.const 0))

  ;; There are no other files: bad descriptor.
  (func (export "fd_read") (param i32 i32 i32 i32) (result i32) (i32.const 8))
  (func (export "fd_close") (param i32) (result i32) (i32.const 8))
  (func (export "fd_fdstat_get") (param i32 i32) (result i32) (i32.const 8))
  (func (export "fd_fdstat_set_flags") (param i32 i32) (result i32) (i32.const 8))
  (func (export "fd_prestat_get") (param i32 i32) (result i32) (i32.const 8))
  (func (export "fd_prestat_dir_name") (param i32 i32 i32) (result i32) (i32.const 8))

  ;; Nothing ever happens, and nobody else runs.
  (func (export "poll_oneoff") (param i32 i32 i32) (param $events i32) (result i32)
    (i32.store (local.get $events) (i32.const 0))
    (i32.const 0))
  (func (export "sched_yield") (result i32) (i32.const 0))

  (func (export "proc_exit") (param i32) (unreachable)))
