/** NTSTATUS values and continue codes that KD uses (ntstatus.h). */
export const NtStatus = {
  /** Done. */
  Success: 0,
  /** What a request carries. */
  Pending: 0x103,
  /** Continue: the exception was handled. */
  DebugContinue: 0x0001_0002,
  /** Exception: a breakpoint, or a break-in. */
  Breakpoint: 0x8000_0003,
  /** Exception: a single step. */
  SingleStep: 0x8000_0004,
  /** Continue: the exception was not handled. */
  ExceptionNotHandled: 0x8001_0001,
  /** It failed. */
  Unsuccessful: 0xc000_0001,
  /** No such call. */
  NotImplemented: 0xc000_0002,
  /** Exception: memory that is not there. */
  AccessViolation: 0xc000_0005,
  /** No such file. */
  NoSuchFile: 0xc000_000f,
  /** Exception: no such instruction. */
  IllegalInstruction: 0xc000_001d,
  /** Exception: division by zero. */
  DivideByZero: 0xc000_0094,
  /** Nothing was found. */
  NotFound: 0xc000_0225,
} as const;
