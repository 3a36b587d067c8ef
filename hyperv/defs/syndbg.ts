/**
 * Bits of the SynDbg MSRs. No specification has them; the implementations agree
 * (Linux arch/x86/kvm/hyperv.h, QEMU target/i386/kvm/hyperv-proto.h).
 *
 * @module
 */

/** Bits of CONTROL. */
export const SyndbgControl = {
  Send: 1,
  Receive: 2,
  /** Shift of the number of bytes to send, 16 bits. */
  LengthShift: 16,
} as const;

/** Bits of STATUS. */
export const SyndbgStatus = {
  Sent: 1,
  Received: 4,
  /** The connection was reset since the last command. */
  Reset: 8,
  /** Shift of the number of bytes received. */
  LengthShift: 16,
} as const;

/** Bit of OPTIONS: the guest is to use hypercalls. */
export const SYNDBG_USE_HYPERCALLS = 4;

/** Bytes in a packet buffer. */
export const SYNDBG_PAGE = 4096;
