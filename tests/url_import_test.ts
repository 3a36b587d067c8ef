import { assertEquals, assertStringIncludes } from "@std/assert";
import { runProgram, serveRepository } from "./_remote.ts";

Deno.test("mod.ts imports by URL with no permission, and runs a guest", async () => {
  const server = serveRepository();
  try {
    const host = `127.0.0.1:${server.addr.port}`;
    const result = await runProgram(
      `import { GuestMemory, interpreter } from "http://${host}/mod.ts";
const memory = new GuestMemory(0x10000);
// mov al, 42; out 0xe9, al; hlt
memory.write(0x7c00, new Uint8Array([0xb0, 42, 0xe6, 0xe9, 0xf4]));
const vm = interpreter().createVm(memory, {
  readMsr: () => 1,
  writeMsr: () => 1,
  readPort: () => 0xff,
  writePort: (_vcpu, port, _size, value) => console.log("port", port, value),
  readMmio: (_vcpu, _gpa, data) => void data.fill(0xff),
  writeMmio: () => {},
  hypercall: () => 1,
  acknowledgeInterrupt: () => -1,
});
const vcpu = vm.createVcpu();
const system = vcpu.getSystemRegisters();
vcpu.setSystemRegisters({ cs: { ...system.cs, selector: 0, base: 0n } });
vcpu.setRegisters({ rip: 0x7c00n });
console.log(vcpu.run(1000).reason);
vm.close();
`,
      ["--check", `--allow-import=${host}`],
    );
    assertEquals(result.stdout, "port 233 42\nhlt\n", result.stderr);
    assertEquals(result.code, 0);
  } finally {
    await server.shutdown();
  }
});

Deno.test("mod.ts has no bare specifier and does nothing at import", async () => {
  const server = serveRepository();
  try {
    const host = `127.0.0.1:${server.addr.port}`;
    const result = await runProgram(
      `const before = Object.keys(globalThis).length;
const syndbg = await import("http://${host}/mod.ts");
console.log(typeof syndbg.interpreter, Object.keys(globalThis).length - before);
`,
      [`--allow-import=${host}`],
    );
    assertStringIncludes(result.stdout, "function 0", result.stderr);
    assertEquals(result.code, 0);
  } finally {
    await server.shutdown();
  }
});
