/** A struct and a view of it. */
export class Struct {
  /** For the kernel. */
  readonly bytes: Uint8Array<ArrayBuffer>;
  /** For us. */
  readonly view: DataView<ArrayBuffer>;

  /** Makes one of zeros. */
  constructor(size: number) {
    this.bytes = new Uint8Array(size);
    this.view = new DataView(this.bytes.buffer);
  }
}
