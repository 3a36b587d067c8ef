import {
  FIRST_VECTOR,
  MESSAGE_TIMER_EXPIRED,
  StimerConfig,
  TimerPayload,
  TIMERS,
} from "./defs/synic.ts";
import type { Synic } from "./synic.ts";
import { isWords } from "./words.ts";

/**
 * Shortest period in units of 100 ns: 200 us, to which KVM holds the local APIC's timer. A guest
 * that asks for less gets fewer expirations.
 */
const PERIOD_MIN = 2000n;

/** A timer as plain data. */
export interface TimerState {
  /** Low and high word of the configuration. */
  config: [number, number];
  /** Expiration time or period, 64 bits. */
  count: bigint;
  /** When it expires next, 0 where it does not run. */
  expiration: bigint;
  /** It has expired, and its message did not find room. */
  waiting: boolean;
}

/** What timers need of the processor they belong to. */
export interface TimerSurroundings {
  /** Reference time in units of 100 ns. */
  now: () => bigint;
  /** Takes the messages. */
  synic: Synic;
  /** Interrupts the processor with a vector of direct mode. */
  interrupt: (vector: number) => void;
}

/**
 * The four synthetic timers of one virtual processor (TLFS chapter 12), in the ways of Linux
 * arch/x86/kvm/hyperv.c: all are lazy in that ticks that are missed are lost, a one-shot whose time
 * is past expires at once, and its message waits until its slot is free.
 */
export class SyntheticTimers {
  readonly #around: TimerSurroundings;
  readonly #timers: TimerState[] = [];
  readonly #payload = new DataView(new ArrayBuffer(TimerPayload.Size));

  constructor(around: TimerSurroundings) {
    this.#around = around;
    this.reset();
  }

  /** All timers as after power-on. */
  reset(): void {
    for (let n = 0; n < TIMERS; n++) {
      this.#timers[n] = {
        config: [0, 0],
        count: 0n,
        expiration: 0n,
        waiting: false,
      };
    }
  }

  /** Copies the timers out. */
  save(): TimerState[] {
    return this.#timers.map((timer) => ({
      ...timer,
      config: [...timer.config],
    }));
  }

  /** Takes timers back that {@linkcode areTimers} has looked at. */
  restore(timers: readonly TimerState[]): void {
    timers.forEach((timer, n) => {
      this.#timers[n] = { ...timer, config: [...timer.config] };
    });
  }

  /** Configuration of timer `n`: low and high word. */
  config(n: number): readonly [number, number] {
    return this.#timers[n]!.config;
  }

  /** Count of timer `n`. */
  count(n: number): bigint {
    return this.#timers[n]!.count;
  }

  /** Writes a configuration: the timer starts anew, or stops. */
  setConfig(n: number, low: number, high: number): void {
    const timer = this.#timers[n]!;
    stop(timer);
    // A timer that runs loses its SINT, and with it what it could signal.
    const lost = (timer.config[0] & StimerConfig.Enable) !== 0 &&
      (low & StimerConfig.Direct) === 0 && sintOf(low) === 0;
    timer.config = [lost ? low & ~StimerConfig.Enable : low, high];
    this.#start(n, this.#around.now());
  }

  /**
   * Writes a count.
   *
   * @param host The VMM's own write neither disables nor enables.
   */
  setCount(n: number, count: bigint, host: boolean): void {
    const timer = this.#timers[n]!;
    stop(timer);
    timer.count = count;
    if (!host) {
      if (count === 0n) timer.config[0] &= ~StimerConfig.Enable;
      else if ((timer.config[0] & StimerConfig.AutoEnable) !== 0) {
        timer.config[0] |= StimerConfig.Enable;
      }
    }
    this.#start(n, this.#around.now());
  }

  /** Reference time at which the first of them expires; undefined if none runs. */
  get next(): bigint | undefined {
    let next: bigint | undefined;
    for (const timer of this.#timers) {
      if (
        runs(timer) && (next === undefined || timer.expiration < next)
      ) next = timer.expiration;
    }
    return next;
  }

  /** Lets expire what is due. */
  update(now: bigint): void {
    for (let n = 0; n < TIMERS; n++) {
      const timer = this.#timers[n]!;
      if (runs(timer) && now >= timer.expiration) {
        this.#expire(n, now);
        this.#start(n, now);
      }
    }
  }

  /** Whether a message of theirs waits for a slot. */
  get waiting(): boolean {
    return this.#timers.some((timer) => timer.waiting);
  }

  /** The guest has emptied the slot of a SINT: what waits for it is tried again. */
  slotFreed(sint: number): void {
    for (let n = 0; n < TIMERS; n++) {
      const { waiting, config } = this.#timers[n]!;
      if (waiting && sintOf(config[0]) === sint) {
        this.#expire(n, this.#around.now());
      }
    }
  }

  /** Starts a timer that is enabled and neither runs nor waits. */
  #start(n: number, now: bigint): void {
    const timer = this.#timers[n]!;
    const [low] = timer.config;
    if ((low & StimerConfig.Enable) === 0 || timer.waiting) return;
    if (timer.count === 0n) return stop(timer);
    if ((low & StimerConfig.Periodic) === 0) {
      timer.expiration = timer.count;
      if (now >= timer.expiration) this.#expire(n, now);
      return;
    }
    const period = timer.count > PERIOD_MIN ? timer.count : PERIOD_MIN;
    // Periods go on from where they began, whatever was missed.
    const late = timer.expiration === 0n ? 0n : now - timer.expiration;
    timer.expiration = now + period - late % period;
  }

  #expire(n: number, now: bigint): void {
    const timer = this.#timers[n]!;
    const [low] = timer.config;
    const periodic = (low & StimerConfig.Periodic) !== 0;
    const delivered = (low & StimerConfig.Direct) !== 0
      ? this.#interrupt(low >>> StimerConfig.VectorShift)
      : this.#post(n, sintOf(low), timer.expiration, now, !periodic);
    // Of periodic timers the next message is as good.
    if (periodic) return;
    timer.waiting = !delivered;
    if (delivered) {
      timer.config[0] &= ~StimerConfig.Enable;
      stop(timer);
    }
  }

  #interrupt(bits: number): true {
    const vector = bits & StimerConfig.VectorMask;
    if (vector >= FIRST_VECTOR) this.#around.interrupt(vector);
    return true;
  }

  #post(
    n: number,
    sint: number,
    expiration: bigint,
    now: bigint,
    insist: boolean,
  ): boolean {
    const payload = this.#payload;
    payload.setUint32(TimerPayload.Index, n, true);
    payload.setBigUint64(TimerPayload.Expiration, expiration, true);
    payload.setBigUint64(TimerPayload.Delivery, now, true);
    return this.#around.synic.post(
      sint,
      MESSAGE_TIMER_EXPIRED,
      0n,
      new Uint8Array(payload.buffer),
      insist,
    );
  }
}

function sintOf(low: number): number {
  return (low >>> StimerConfig.SintShift) & StimerConfig.SintMask;
}

function runs(timer: TimerState): boolean {
  return timer.expiration !== 0n && !timer.waiting;
}

function stop(timer: TimerState): void {
  timer.expiration = 0n;
  timer.waiting = false;
}

/** Whether a value is the state of a processor's timers. */
export function areTimers(value: unknown): value is TimerState[] {
  return Array.isArray(value) && value.length === TIMERS &&
    value.every((timer) =>
      isWords(timer?.config, 2) && typeof timer.count === "bigint" &&
      timer.count === BigInt.asUintN(64, timer.count) &&
      typeof timer.expiration === "bigint" &&
      typeof timer.waiting === "boolean"
    );
}
