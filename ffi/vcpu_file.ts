import { KvmFile } from "./kvm_file.ts";
import { mapRunPages, unmapRunPages } from "./run_pages.ts";

/** The kernel's vCPU: its descriptor and its `struct kvm_run`. */
export class VcpuFile extends KvmFile {
  /** `struct kvm_run` and the data pages behind it, as bytes. */
  run8: Uint8Array<ArrayBuffer>;
  /** The same as 16-bit words. */
  run16: Uint16Array<ArrayBuffer>;
  /** The same as 32-bit words. */
  run32: Uint32Array<ArrayBuffer>;
  /** The same for 64-bit words. */
  view: DataView<ArrayBuffer>;

  /**
   * Creates a vCPU.
   *
   * @param id Its number for the kernel, never used before in this VM.
   * @throws {Error} If the kernel does not make it; then nothing is left of it.
   */
  constructor(vm: KvmFile, id: number, runSize: number) {
    super(vm.system, vm.call("create vCPU", "CreateVcpu", id));
    try {
      this.run8 = mapRunPages(vm.system, this.fd, runSize);
    } catch (error) {
      super.close();
      throw error;
    }
    const { buffer, byteOffset, length } = this.run8;
    this.run16 = new Uint16Array(buffer, byteOffset, length / 2);
    this.run32 = new Uint32Array(buffer, byteOffset, length / 4);
    this.view = new DataView(buffer, byteOffset, length);
  }

  /** Unmaps and closes, once. The views are of bytes of no vCPU then, for the pages get another owner. */
  override close(): void {
    if (this.fd < 0) return;
    const { length } = this.run8;
    unmapRunPages(this.system, this.run8);
    super.close();
    this.run8 = new Uint8Array(length);
    this.run16 = new Uint16Array(this.run8.buffer);
    this.run32 = new Uint32Array(this.run8.buffer);
    this.view = new DataView(this.run8.buffer);
  }
}
