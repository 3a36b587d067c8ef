import { KdError } from "./link.ts";

/** A limit for waiting. */
export interface WaitOptions {
  /** Milliseconds; no limit by default. */
  timeout?: number;
  /** Ends the waiting. */
  signal?: AbortSignal;
}

/** Those who wait for something to hold; each looks again when something happened. */
export class Waiters {
  readonly #looks = new Set<() => void>();
  #closed = false;

  /** Adds somebody who looks. */
  add(look: () => void): void {
    this.#looks.add(look);
  }

  /** Takes somebody away. */
  delete(look: () => void): void {
    this.#looks.delete(look);
  }

  /** Something happened. */
  wake(): void {
    for (const look of [...this.#looks]) look();
  }

  /** Nothing will happen any more: all waiting fails. */
  close(): void {
    this.#closed = true;
    this.wake();
  }

  /** Waits until something holds. @throws {KdError} When the time is over, at the signal or when closed. */
  async until(
    holds: () => boolean,
    { timeout, signal }: WaitOptions,
  ): Promise<void> {
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    const fail = (why: string): void =>
      reject(new KdError(`Cannot wait for the target: ${why}`));
    const look = (): void => {
      if (holds()) resolve();
      else if (this.#closed) fail("the session is closed");
    };
    const aborted = (): void => fail("interrupted");
    const timer = timeout === undefined
      ? undefined
      : setTimeout(() => fail("the time is over"), timeout);
    this.add(look);
    signal?.addEventListener("abort", aborted);
    if (signal?.aborted) aborted();
    look();
    try {
      await promise;
    } finally {
      clearTimeout(timer);
      this.delete(look);
      signal?.removeEventListener("abort", aborted);
    }
  }
}
