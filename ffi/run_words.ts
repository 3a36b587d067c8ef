/** Words that the two sides of a run thread share. */
export const Word = {
  /** A {@linkcode RunState}. */
  State: 0,
  /** Descriptor of the vCPU to run. */
  File: 1,
  /** What `ioctl` returned. */
  Result: 2,
  /** The thread's number, by which it is signalled. */
  Thread: 3,
  /** How many there are. */
  Count: 4,
} as const;

/** Who has something to do. */
export const RunState = {
  /** The thread is starting. */
  Starting: 0,
  /** It waits for work. */
  Idle: 1,
  /** It is in the kernel. */
  Running: 2,
  /** It is to end. */
  Quit: 3,
} as const;
