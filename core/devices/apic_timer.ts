import { checkState, type DeviceState } from "./state.ts";

/** Ticks a second of every local APIC's timer before its divider. */
export const APIC_FREQUENCY = 1_000_000_000;

/** Modes of the timer: LVT bits 18:17 (SDM volume 3A, 11.5.4). */
const TimerMode = { OneShot: 0, Periodic: 1, TscDeadline: 2 } as const;

/** What a timer measures time with. */
export interface ApicClock {
  /** Nanoseconds, monotonic. */
  now(): number;
  /** The processor's TSC. */
  readTsc(): bigint;
  /** TSC ticks a second. */
  readonly tscFrequency: number;
}

/** The timer of a local APIC. */
export class ApicTimer {
  readonly #clock: ApicClock;
  readonly #fire: () => void;
  readonly #changed: (until: number) => void;
  #mode: number = TimerMode.OneShot;
  #initial = 0;
  /** Nanoseconds of one count. */
  #tick = 2;
  /** When it fires next; Infinity: it does not. */
  #due = Infinity;
  /** IA32_TSC_DEADLINE, while it has not passed. */
  #deadline = 0n;

  /**
   * @param fire Called when the time has come.
   * @param changed Called when the next time has changed: nanoseconds until then, or Infinity.
   */
  constructor(
    clock: ApicClock,
    fire: () => void,
    changed: (until: number) => void,
  ) {
    this.#clock = clock;
    this.#fire = fire;
    this.#changed = changed;
  }

  /** The current count. */
  get count(): number {
    if (this.#due === Infinity || this.#mode === TimerMode.TscDeadline) {
      return 0;
    }
    let left = Math.ceil((this.#due - this.#clock.now()) / this.#tick);
    if (left <= 0 && this.#mode === TimerMode.Periodic) {
      left = this.#initial - (-left) % this.#initial;
    }
    return Math.min(Math.max(0, left), this.#initial);
  }

  /** Bits 18:17 of the LVT are new, after an {@linkcode ApicTimer.update}. To or from TSC deadline disarms. */
  setMode(mode: number): void {
    if (mode === this.#mode) return;
    const disarms = mode === TimerMode.TscDeadline ||
      this.#mode === TimerMode.TscDeadline;
    this.#mode = mode;
    if (disarms) this.#arm(Infinity);
  }

  /** The divide configuration register was written; the count goes on from where it is. */
  setDivide(value: number): void {
    this.update();
    const { count } = this;
    const code = (value & 3) | ((value >> 1) & 4);
    this.#tick = 2 ** ((code + 1) & 7);
    if (this.#due !== Infinity && this.#mode !== TimerMode.TscDeadline) {
      this.#arm(this.#clock.now() + count * this.#tick);
    }
  }

  /** The initial count register was written, which starts the timer, or with 0 stops it. */
  setInitial(value: number): void {
    this.update();
    if (this.#mode === TimerMode.TscDeadline) return;
    this.#initial = value;
    this.#arm(
      value === 0 ? Infinity : this.#clock.now() + value * this.#tick,
    );
  }

  /** IA32_TSC_DEADLINE: 0 unless it is armed. */
  get deadline(): bigint {
    return this.#deadline;
  }

  /** IA32_TSC_DEADLINE was written. Without that mode it does nothing. */
  setDeadline(value: bigint): void {
    this.update();
    if (this.#mode !== TimerMode.TscDeadline) return;
    if (value === 0n) {
      this.#arm(Infinity);
      return;
    }
    const ticks = Number(value - this.#clock.readTsc());
    const wait = Math.ceil(ticks * 1e9 / this.#clock.tscFrequency);
    this.#arm(this.#clock.now() + Math.max(0, wait), value);
  }

  /** Fires if the time has come; missed times are one. */
  update(): void {
    const late = this.#clock.now() - this.#due;
    if (!(late >= 0)) return;
    if (this.#mode === TimerMode.Periodic) {
      const period = this.#initial * this.#tick;
      this.#due += (Math.floor(late / period) + 1) * period;
    } else {
      this.#due = Infinity;
      this.#deadline = 0n;
    }
    this.#fire();
  }

  /** Nanoseconds until it fires; Infinity if it does not. */
  untilNext(): number {
    return this.#due === Infinity
      ? Infinity
      : Math.max(0, this.#due - this.#clock.now());
  }

  /** State after power-on. */
  reset(): void {
    this.#mode = TimerMode.OneShot;
    this.#initial = 0;
    this.#tick = 2;
    this.#arm(Infinity);
  }

  #arm(due: number, deadline = 0n): void {
    this.#due = due;
    this.#deadline = deadline;
    this.#changed(this.untilNext());
  }

  /** Copies the state out; times as nanoseconds from now. */
  save(): DeviceState {
    return {
      mode: this.#mode,
      initial: this.#initial,
      tick: this.#tick,
      left: this.untilNext(),
      deadline: this.#deadline,
    };
  }

  /** Takes back what {@linkcode ApicTimer.save} gave. */
  restore(state: unknown): void {
    const s = checkState("APIC timer", state, {
      mode: 2,
      initial: 0xffff_ffff,
      tick: 128,
      left: "time",
      deadline: "bigint",
    });
    this.#mode = s.mode;
    this.#initial = s.initial;
    this.#tick = Math.max(1, s.tick);
    // A period of nothing would be due for ever.
    const idle = s.mode === TimerMode.Periodic && s.initial === 0;
    this.#arm(idle ? Infinity : this.#clock.now() + s.left, s.deadline);
  }
}
