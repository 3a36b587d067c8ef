/**
 * The C library's calls, by `Deno.dlopen`.
 *
 * Unsafe, because a wrong signature or length corrupts the process: this is the one file that names native symbols.
 * Buffers are passed with their own length's worth of struct, checked by the layouts' test. No pointer is ever made
 * from a number, so the permission for the C library's path alone is enough.
 *
 * @module
 */
import { WorkerThread } from "./run_thread_unsafe.ts";
import type { SystemCalls } from "./system_calls.ts";

const LIBC = "libc.so.6";
/** Where distributions keep it, the first one being named in advice. */
const FOLDERS = [
  "/lib/x86_64-linux-gnu",
  "/usr/lib/x86_64-linux-gnu",
  "/lib64",
  "/usr/lib64",
  "/usr/lib",
];

const SYMBOLS = {
  // int open(const char *path, int flags)
  open: { parameters: ["buffer", "i32"], result: "i32" },
  // int close(int fd)
  close: { parameters: ["i32"], result: "i32" },
  // int ioctl(int fd, unsigned long request, ...): the kernel takes 32 bits of the request
  ioctl: { parameters: ["i32", "u32", "u32"], result: "i32" },
  ioctlBytes: {
    name: "ioctl",
    parameters: ["i32", "u32", "buffer"],
    result: "i32",
  },
  // void *mmap(void *at, size_t length, int protection, int flags, int fd, off_t offset)
  mmap: {
    parameters: ["buffer", "usize", "i32", "i32", "i32", "i64"],
    result: "i64",
  },
  // void *memmove(void *to, const void *from, size_t length): with length 0 it tells where `to` is
  addressOf: {
    name: "memmove",
    parameters: ["buffer", "buffer", "usize"],
    result: "u64",
  },
  copyFrom: {
    name: "memmove",
    parameters: ["buffer", "u64", "usize"],
    result: "u64",
  },
  // int *__errno_location(void)
  errnoLocation: { name: "__errno_location", parameters: [], result: "u64" },
  // void (*signal(int number, void (*handler)(int)))(int)
  signal: { parameters: ["i32", "pointer"], result: "i64" },
  // int abs(int): a handler that does nothing
  abs: { type: "pointer" },
  // int __libc_current_sigrtmin(void)
  sigrtmin: { name: "__libc_current_sigrtmin", parameters: [], result: "i32" },
  // long syscall(long number, ...): the timers are not in every libc.so.6
  gettid: { name: "syscall", parameters: ["i64"], result: "i64" },
  timerCreate: {
    name: "syscall",
    parameters: ["i64", "i64", "buffer", "buffer"],
    result: "i64",
  },
  timerSettime: {
    name: "syscall",
    parameters: ["i64", "i64", "i64", "buffer", "i64"],
    result: "i64",
  },
  timerDelete: {
    name: "syscall",
    parameters: ["i64", "i64"],
    result: "i64",
  },
  // tgkill(int process, int thread, int signal)
  tgkill: {
    name: "syscall",
    parameters: ["i64", "i64", "i64", "i64"],
    result: "i64",
  },
} as const satisfies Deno.ForeignLibraryInterface;

const O_RDWR_CLOEXEC = 0x8_0002;
const PROT_READ_WRITE = 3;
const MAP_SHARED_FIXED = 0x11;
const MAP_PRIVATE_FIXED_ANONYMOUS = 0x32;
// Linux arch/x86/entry/syscalls/syscall_64.tbl
const SYS_GETTID = 186n;
const SYS_TIMER_CREATE = 222n;
const SYS_TIMER_SETTIME = 223n;
const SYS_TIMER_DELETE = 226n;
const SYS_TGKILL = 234n;
const CLOCK_MONOTONIC = 1n;
const SIGEV_THREAD_ID = 4;
/** Distance from SIGRTMIN of the signal that ends time slices. */
const SLICE_SIGNAL = 3;

/** Why the C library cannot be called, in one line, with what helps. */
export class LibcUnavailable extends Error {
  override name = "LibcUnavailable";
}

function permitted(path: string): boolean {
  return Deno.permissions.querySync({ name: "ffi", path }).state === "granted";
}

/** A library, and where it was found. */
interface Loaded {
  path: string;
  library: Deno.DynamicLibrary<typeof SYMBOLS>;
}

/** Finds a library that may be loaded. */
function load(path: string | undefined): Loaded {
  if (typeof Deno === "undefined" || Deno.dlopen === undefined) {
    throw new LibcUnavailable("it needs Deno's foreign function interface");
  }
  if (Deno.build.os !== "linux" || Deno.build.arch !== "x86_64") {
    throw new LibcUnavailable(
      `it needs Linux on x86-64, and this is ${Deno.build.os} on ${Deno.build.arch}`,
    );
  }
  const paths = path === undefined
    ? FOLDERS.map((folder) => `${folder}/${LIBC}`)
    : [path];
  const allowed = paths.filter(permitted);
  if (allowed.length === 0) {
    throw new LibcUnavailable(
      `permission is missing: run deno with --allow-ffi=${paths[0]}`,
    );
  }
  let reason: unknown;
  for (const candidate of allowed) {
    try {
      return { path: candidate, library: Deno.dlopen(candidate, SYMBOLS) };
    } catch (error) {
      reason = error;
    }
  }
  throw new LibcUnavailable(
    `the C library cannot be loaded from ${allowed.join(", ")}: ${
      reason instanceof Error ? reason.message : reason
    }`,
  );
}

let loaded: SystemCalls | undefined;

/**
 * The C library's calls; it is loaded by the first call.
 *
 * @param path The C library, if it is not at one of its usual places.
 * @throws {LibcUnavailable} If it cannot be called.
 */
export function libc(path?: string): SystemCalls {
  return loaded ??= bind(load(path));
}

function bind({ path, library }: Loaded): SystemCalls {
  const c = library.symbols;
  const word = new Int32Array(1);
  const wordBytes = new Uint8Array(word.buffer);
  // struct itimerspec: interval and value, each seconds and nanoseconds.
  const spec = new Uint32Array(8);
  const specBytes = new Uint8Array(spec.buffer);
  const signal = c.sigrtmin() + SLICE_SIGNAL;
  // SAFETY: abs() has one int argument, as a handler has, and touches no memory.
  c.signal(signal, c.abs);
  return {
    // SAFETY: the path ends in a zero byte.
    open: (path) =>
      c.open(new TextEncoder().encode(`${path}\0`), O_RDWR_CLOEXEC),
    close: (fd) => void c.close(fd),
    ioctl: c.ioctl,
    // SAFETY: callers pass the whole struct that the request's number names.
    ioctlBytes: c.ioctlBytes,
    errno() {
      // SAFETY: errno is an int of this thread that lives as long as the thread.
      c.copyFrom(wordBytes, c.errnoLocation(), 4n);
      return word[0]!;
    },
    // SAFETY: nothing is copied.
    address: (bytes) => c.addressOf(bytes, bytes, 0n),
    // SAFETY: the pages are ours, of a WebAssembly.Memory that is kept by whoever holds them.
    mapOver: (pages, fd) =>
      c.mmap(
        pages,
        BigInt(pages.length),
        PROT_READ_WRITE,
        MAP_SHARED_FIXED,
        fd,
        0n,
      ) !== -1n,
    // SAFETY: as above; the range stays mapped, so that views of it stay good.
    unmap: (pages) =>
      void c.mmap(
        pages,
        BigInt(pages.length),
        PROT_READ_WRITE,
        MAP_PRIVATE_FIXED_ANONYMOUS,
        -1,
        0n,
      ),
    createTimer() {
      // struct sigevent: value @0, signal @8, how @12, thread @16.
      const event = new Uint32Array(16);
      event[2] = signal;
      event[3] = SIGEV_THREAD_ID;
      event[4] = Number(c.gettid(SYS_GETTID));
      const created = c.timerCreate(
        SYS_TIMER_CREATE,
        CLOCK_MONOTONIC,
        new Uint8Array(event.buffer),
        wordBytes,
      );
      return created === 0n ? word[0]! : -1;
    },
    setTimer(id, milliseconds) {
      spec[2] = milliseconds > 0 ? 1_000_000 : 0;
      const seconds = Math.floor(milliseconds / 1000);
      spec[4] = seconds;
      // A value of 0 would stop the timer.
      spec[6] = Math.max(
        milliseconds > 0 ? 1000 : 0,
        Math.floor((milliseconds - seconds * 1000) * 1e6),
      );
      c.timerSettime(SYS_TIMER_SETTIME, BigInt(id), 0n, specBytes, 0n);
    },
    deleteTimer: (id) => void c.timerDelete(SYS_TIMER_DELETE, BigInt(id)),
    // SAFETY: the signal has a handler, and the kernel looks whether the thread is ours.
    createRunThread: () =>
      new WorkerThread(path, (thread) =>
        void c.tgkill(
          SYS_TGKILL,
          BigInt(Deno.pid),
          BigInt(thread),
          BigInt(signal),
        )),
  };
}
