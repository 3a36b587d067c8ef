import { MsrResult } from "../core/backend.ts";
import type { GuestMemory } from "../core/guest_memory.ts";
import { HvMsr } from "./defs/msr.ts";
import {
  EVENT_FLAG_BYTES,
  FIRST_VECTOR,
  MESSAGE_PAYLOAD_MAX,
  MESSAGE_PENDING,
  MessageSlot,
  PAGE_ENABLED,
  Sint,
  SINTS,
} from "./defs/synic.ts";
import { pageOf } from "./words.ts";

// Registers, two words each.
const SCONTROL = 0;
const SVERSION = 2;
const SIEFP = 4;
const SIMP = 6;
const SINT = 8;
const WORDS = SINT + 2 * SINTS;
const PAGE = 4096;

/** Words of {@linkcode Synic.save}. */
export const SYNIC_WORDS: number = WORDS;

/**
 * The synthetic interrupt controller of one virtual processor (TLFS chapter 11), with the checks of
 * Linux arch/x86/kvm/hyperv.c. As there messages and events do not ask for SCONTROL: early
 * debuggers turn on the message page alone and poll it.
 */
export class Synic {
  readonly #memory: GuestMemory;
  readonly #interrupt: (vector: number, autoEoi: boolean) => void;
  readonly #words = new Int32Array(WORDS);

  /** @param interrupt Interrupts the processor. */
  constructor(
    memory: GuestMemory,
    interrupt: (vector: number, autoEoi: boolean) => void,
  ) {
    this.#memory = memory;
    this.#interrupt = interrupt;
    this.reset();
  }

  /** All registers as after power-on. */
  reset(): void {
    const words = this.#words.fill(0);
    words[SVERSION] = 1;
    for (let n = 0; n < SINTS; n++) words[SINT + 2 * n] = Sint.Masked;
  }

  /** Copies the registers out. */
  save(): number[] {
    return [...this.#words];
  }

  /** Takes {@linkcode SYNIC_WORDS} words back. */
  restore(words: readonly number[]): void {
    this.#words.set(words);
  }

  /** Reads a register other than EOM. */
  read(index: number, value: Uint32Array): MsrResult {
    const at = locate(index);
    value[0] = this.#words[at]!;
    value[1] = this.#words[at + 1]!;
    return MsrResult.Handled;
  }

  /** Writes a register other than EOM. */
  write(index: number, low: number, high: number, host: boolean): MsrResult {
    if (!host && !this.#accept(index, low, high)) return MsrResult.Refused;
    const at = locate(index);
    this.#words[at] = low;
    this.#words[at + 1] = high;
    return MsrResult.Handled;
  }

  /** Whether a guest may write a value; a page that it turns on is cleared. */
  #accept(index: number, low: number, high: number): boolean {
    switch (index) {
      case HvMsr.Scontrol:
        return true;
      case HvMsr.Sversion:
        return false;
      case HvMsr.Siefp:
      case HvMsr.Simp: {
        if ((low & PAGE_ENABLED) === 0) return true;
        const page = pageOf(low, high);
        if (!this.#memory.contains(page, PAGE)) return false;
        this.#memory.fill(page, PAGE);
        return true;
      }
      default:
        return (low & Sint.VectorMask) >= FIRST_VECTOR ||
          (low & Sint.Masked) !== 0;
    }
  }

  /** Whether a SINT interrupts with a vector. */
  signals(sint: number, vector: number): boolean {
    const low = this.#words[SINT + 2 * sint]!;
    return (low & Sint.Masked) === 0 && (low & Sint.VectorMask) === vector;
  }

  /**
   * Writes a message into a SINT's slot and interrupts.
   *
   * @param sender Port that it comes from, 0 for the hypervisor.
   * @param payload At most 240 bytes.
   * @param insist Where the slot is taken the guest is told that another message waits.
   * @returns False if the slot is taken or there is none.
   */
  post(
    sint: number,
    type: number,
    sender: bigint,
    payload: Uint8Array,
    insist: boolean,
  ): boolean {
    const memory = this.#memory;
    const page = this.#page(SIMP);
    if (page < 0) return false;
    const slot = page + MessageSlot.Size * sint;
    if (memory.view.getUint32(slot + MessageSlot.Type, true) !== 0) {
      if (insist) {
        const flags = memory.bytes[slot + MessageSlot.Flags]!;
        memory.writeU8(slot + MessageSlot.Flags, flags | MESSAGE_PENDING);
      }
      return false;
    }
    const length = Math.min(payload.length, MESSAGE_PAYLOAD_MAX);
    memory.write(slot + MessageSlot.Payload, payload.subarray(0, length));
    memory.writeU64(slot + MessageSlot.Sender, sender);
    memory.writeU32(slot + MessageSlot.PayloadSize, length);
    // The type says that all the rest is there.
    memory.writeU32(slot + MessageSlot.Type, type);
    this.#signal(sint);
    return true;
  }

  /**
   * Sets one of a SINT's 2048 event flags, and interrupts if it was clear.
   *
   * @returns False if there is no page of flags.
   */
  signalEvent(sint: number, flag: number): boolean {
    const page = this.#page(SIEFP);
    if (page < 0) return false;
    const at = page + EVENT_FLAG_BYTES * sint + (flag >>> 3);
    const byte = this.#memory.bytes[at]!;
    const bit = 1 << (flag & 7);
    if ((byte & bit) === 0) {
      this.#memory.writeU8(at, byte | bit);
      this.#signal(sint);
    }
    return true;
  }

  /** Address of an enabled page in RAM, else -1: registers that the host wrote are not checked. */
  #page(at: number): number {
    const low = this.#words[at]!;
    const page = pageOf(low, this.#words[at + 1]!);
    return (low & PAGE_ENABLED) !== 0 && this.#memory.contains(page, PAGE)
      ? page
      : -1;
  }

  #signal(sint: number): void {
    const low = this.#words[SINT + 2 * sint]!;
    const vector = low & Sint.VectorMask;
    if ((low & (Sint.Masked | Sint.Polling)) !== 0 || vector < FIRST_VECTOR) {
      return;
    }
    this.#interrupt(vector, (low & Sint.AutoEoi) !== 0);
  }
}

function locate(index: number): number {
  switch (index) {
    case HvMsr.Scontrol:
      return SCONTROL;
    case HvMsr.Sversion:
      return SVERSION;
    case HvMsr.Siefp:
      return SIEFP;
    case HvMsr.Simp:
      return SIMP;
    default:
      return SINT + 2 * (index - HvMsr.Sint0);
  }
}
