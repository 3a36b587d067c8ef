/**
 * The synthetic interrupt controller and the synthetic timers (TLFS chapters 11 and 12).
 *
 * @module
 */

/** SINTs of a virtual processor. */
export const SINTS = 16;
/** Lowest interrupt vector; those below are the CPU's exceptions. */
export const FIRST_VECTOR = 16;

/** Bits of the low word of a SINT register. */
export const Sint = {
  VectorMask: 0xff,
  /** Nothing is signalled. */
  Masked: 1 << 16,
  /** The local APIC ends the interrupt as it delivers it. */
  AutoEoi: 1 << 17,
  /** The guest looks at its pages by itself: no interrupt. */
  Polling: 1 << 18,
} as const;

/** Bit of SCONTROL, SIEFP, SIMP, VP_ASSIST_PAGE, REFERENCE_TSC and HYPERCALL that turns them on. */
export const PAGE_ENABLED = 1;

/** A message slot: one for each SINT in the message page. */
export const MessageSlot = {
  Size: 256,
  /** A 32-bit type; 0 where the slot is free. */
  Type: 0,
  PayloadSize: 4,
  Flags: 5,
  /** Port, partition, or 0: 64 bits. */
  Sender: 8,
  Payload: 16,
} as const;
/** Bit of a slot's flags: another message waits until the guest has written EOM. */
export const MESSAGE_PENDING = 1;
/** Most bytes in a message's payload. */
export const MESSAGE_PAYLOAD_MAX = 240;
/** Type of the message of a timer that has expired. */
export const MESSAGE_TIMER_EXPIRED = 0x8000_0010;

/** Payload of {@linkcode MESSAGE_TIMER_EXPIRED}. Times are reference times. */
export const TimerPayload = {
  Size: 24,
  /** 32 bits. */
  Index: 0,
  /** When it expired, 64 bits. */
  Expiration: 8,
  /** When the message was written, 64 bits. */
  Delivery: 16,
} as const;

/** Bytes of event flags that each SINT has in the page of flags. */
export const EVENT_FLAG_BYTES = 256;

/** Timers of a virtual processor. */
export const TIMERS = 4;

/** Bits of the low word of a timer's configuration. */
export const StimerConfig = {
  Enable: 1,
  Periodic: 1 << 1,
  /** Expirations may come late. */
  Lazy: 1 << 2,
  /** A write of a count other than 0 enables. */
  AutoEnable: 1 << 3,
  VectorShift: 4,
  VectorMask: 0xff,
  /** An interrupt with the vector above instead of a message. */
  Direct: 1 << 12,
  SintShift: 16,
  SintMask: 15,
} as const;
