const BUFFER_BYTES = 4096;
const NEWLINE = 10;

/** Writes a guest's bytes to a stream, a buffer at a time, or only whole lines of them. */
export class ConsoleOutput {
  readonly #stream: { writeSync(data: Uint8Array): number };
  readonly #lines: boolean;
  readonly #buffer = new Uint8Array(BUFFER_BYTES);
  #used = 0;
  #broken = false;

  /** @param options.lines Others write to the stream too: a line goes out when it ends. */
  constructor(
    stream: { writeSync(data: Uint8Array): number },
    { lines = false }: { lines?: boolean } = {},
  ) {
    this.#stream = stream;
    this.#lines = lines;
  }

  /** Whether nothing waits to go out. */
  get empty(): boolean {
    return this.#used === 0;
  }

  /** Takes a byte; it, or its line, is out when the guest's time slice ends at the latest. */
  write(byte: number): void {
    if (this.#used === 0 && !this.#lines) queueMicrotask(() => this.flush());
    this.#buffer[this.#used++] = byte;
    if (
      this.#used === BUFFER_BYTES || (this.#lines && byte === NEWLINE)
    ) this.flush();
  }

  /** Puts out what waits. When nobody reads any more the rest is dropped. */
  flush(): void {
    const data = this.#buffer.subarray(0, this.#used);
    this.#used = 0;
    if (this.#broken) return;
    try {
      for (let at = 0; at < data.length;) {
        at += this.#stream.writeSync(data.subarray(at));
      }
    } catch (error) {
      if (!(error instanceof Deno.errors.BrokenPipe)) throw error;
      this.#broken = true;
    }
  }
}
