/** Memory at an address, and a processor of a few instructions over it: enough to be debugged. */
export class FakeCpu {
  readonly memory: Uint8Array;
  readonly base: bigint;
  /** Registers by the names that CONTEXT has. */
  readonly registers: Record<string, bigint> = {
    rip: 0n,
    rsp: 0n,
    rbp: 0n,
    rax: 0n,
    eflags: 2n,
    cs: 0x10n,
  };

  constructor(base: bigint, size: number) {
    this.base = base;
    this.memory = new Uint8Array(size);
  }

  /** The bytes from `address` on that exist, at most `length`. */
  bytes(address: bigint, length: number): Uint8Array {
    const at = Number(BigInt.asUintN(64, address - this.base));
    return at >= this.memory.length
      ? new Uint8Array(0)
      : this.memory.subarray(at, at + length);
  }

  push(value: bigint): void {
    this.registers.rsp = this.registers.rsp! - 8n;
    this.#view(this.registers.rsp).setBigUint64(0, value, true);
  }

  pop(): bigint {
    const value = this.#view(this.registers.rsp!).getBigUint64(0, true);
    this.registers.rsp = this.registers.rsp! + 8n;
    return value;
  }

  /** Executes one instruction; false, and nothing done, at INT3 and what it does not know. */
  step(): boolean {
    const r = this.registers;
    const code = this.bytes(r.rip!, 5);
    const view = new DataView(code.buffer, code.byteOffset, code.length);
    const go = (length: number, relative = 0): boolean => {
      r.rip = r.rip! + BigInt(length + relative);
      return true;
    };
    switch (code[0]) {
      case 0x90: // nop
        return go(1);
      case 0xeb: // jmp short
        return go(2, view.getInt8(1));
      case 0xe8: // call
        this.push(r.rip! + 5n);
        return go(5, view.getInt32(1, true));
      case 0xc3: // ret
        r.rip = this.pop();
        return true;
      case 0x55: // push rbp
        this.push(r.rbp!);
        return go(1);
      case 0x5d: // pop rbp
        r.rbp = this.pop();
        return go(1);
      case 0x48:
        if (code[1] === 0x89 && code[2] === 0xe5) { // mov rbp, rsp
          r.rbp = r.rsp!;
          return go(3);
        }
        if (code[1] === 0xff && code[2] === 0xc0) { // inc rax
          r.rax = r.rax! + 1n;
          return go(3);
        }
    }
    return false;
  }

  #view(address: bigint): DataView {
    const bytes = this.bytes(address, 8);
    return new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  }
}
