import { formatTrace, type TraceEvent } from "../hyperv/trace.ts";

/**
 * Prints trace points for a person: a hypercall that is polled with the same result is printed
 * once, with how often it was repeated.
 */
export class TracePrinter {
  /** Trace points in all. */
  events = 0;
  readonly #print: (line: string) => void;
  /** A call whose result has not been traced yet. */
  #call: string | undefined;
  #lastPair = "";
  #repeats = 0;

  constructor(print: (line: string) => void) {
    this.#print = print;
  }

  /** Takes a trace point. */
  trace(event: Readonly<TraceEvent>): void {
    this.events++;
    const line = formatTrace(event);
    if (event.name === "kvm_hv_hypercall") {
      this.#call = line;
      return;
    }
    if (this.#call === undefined) {
      this.flush();
      this.#print(line);
      return;
    }
    const pair = `${this.#call}\n${line}`;
    if (pair === this.#lastPair) {
      this.#repeats++;
      this.#call = undefined;
      return;
    }
    this.flush();
    this.#print(line);
    this.#lastPair = pair;
  }

  /** Prints what is held back; call before printing anything else. */
  flush(): void {
    if (this.#repeats > 0) {
      this.#print(`the same ${this.#repeats} times more`);
      this.#repeats = 0;
    }
    this.#lastPair = "";
    if (this.#call !== undefined) this.#print(this.#call);
    this.#call = undefined;
  }
}
