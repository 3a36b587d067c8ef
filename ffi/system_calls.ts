/**
 * What the KVM backend asks of the operating system. Nothing else in it does, so tests can put something in
 * between that makes a call fail.
 */
export interface SystemCalls {
  /** Opens a device for reading and writing: its file descriptor, or -1. */
  open(path: string): number;
  /** Closes a file descriptor. */
  close(fd: number): void;
  /** `ioctl` with a number below 2^32: what it returns, -1 on failure. */
  ioctl(fd: number, request: number, argument: number): number;
  /** `ioctl` with a struct, which the kernel reads, writes or both. */
  ioctlBytes(
    fd: number,
    request: number,
    bytes: Uint8Array<ArrayBuffer>,
  ): number;
  /** Number of the last failure on this thread (errno). */
  errno(): number;
  /** Where bytes are. It is only good while `bytes` is alive, and its buffer is one that never moves. */
  address(bytes: Uint8Array<ArrayBuffer>): bigint;
  /** Maps the start of a file over whole pages of a WebAssembly.Memory: false on failure. */
  mapOver(pages: Uint8Array<ArrayBuffer>, fd: number): boolean;
  /** Puts fresh zero pages there again, so that the file is mapped no more. */
  unmap(pages: Uint8Array<ArrayBuffer>): void;
  /** Makes a timer that interrupts blocking calls of this thread: its id, or -1. */
  createTimer(): number;
  /** Starts a timer that goes off after `milliseconds` and each millisecond from then on; 0 stops it. */
  setTimer(id: number, milliseconds: number): void;
  /** Deletes a timer. */
  deleteTimer(id: number): void;
  /** Starts a thread that runs vCPUs. */
  createRunThread(): RunThread;
}

/** A thread of its own for KVM_RUN. */
export interface RunThread {
  /** Runs a vCPU in the kernel: what `ioctl` returned; why it failed the run page tells. One at a time. */
  run(fd: number): Promise<number>;
  /** Interrupts a run. With `immediate_exit` set before, none goes on. */
  interrupt(): void;
  /** Interrupts a run and waits, without the event loop, until it has come back. */
  settle(): void;
  /** Ends the thread. */
  close(): void;
}

const NAMES: Readonly<Record<number, string>> = {
  1: "EPERM",
  2: "ENOENT",
  4: "EINTR",
  5: "EIO",
  6: "ENXIO",
  7: "E2BIG",
  9: "EBADF",
  11: "EAGAIN",
  12: "ENOMEM",
  13: "EACCES",
  14: "EFAULT",
  16: "EBUSY",
  17: "EEXIST",
  19: "ENODEV",
  22: "EINVAL",
  23: "ENFILE",
  24: "EMFILE",
  25: "ENOTTY",
  28: "ENOSPC",
  38: "ENOSYS",
};

/** Errno values that the backend tells apart. */
export const Errno = {
  Perm: 1,
  NoEntry: 2,
  Interrupted: 4,
  NoDeviceAddress: 6,
  TooBig: 7,
  Access: 13,
  NoDevice: 19,
} as const;

/** An errno as people know it. */
export function errnoName(errno: number): string {
  return NAMES[errno] ?? `errno ${errno}`;
}
