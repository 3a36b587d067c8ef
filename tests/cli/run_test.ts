import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { createSocket } from "node:dgram";
import type { Buffer } from "node:buffer";
import { finishCli, runCli, startCli, withImage } from "./_cli.ts";

/** mov al, 3; out 0xf4, al */
const EXIT_3 = [0xb0, 3, 0xe6, 0xf4];
/** jmp $ */
const SPIN = [0xeb, 0xfe];
/** lidt [zeros]; int3: with no interrupt table nothing can be delivered. */
const TRIPLE_FAULT = [0x0f, 0x01, 0x1e, 0x06, 0x7c, 0xcc, 0, 0, 0, 0, 0, 0];
/** mov ecx, 0x400000f2; rdmsr; then as EXIT_3 */
const READ_STATUS = [0x66, 0xb9, 0xf2, 0, 0, 0x40, 0x0f, 0x32, ...EXIT_3];
/** Sends the bytes "hello" at 0x7000 as a debug packet. */
const SEND_HELLO = [
  ...[..."hello"].flatMap((letter, n) => [
    0xc6, // mov byte [0x7000 + n], letter
    0x06,
    n,
    0x70,
    letter.charCodeAt(0),
  ]),
  ...[0x66, 0x31, 0xd2], // xor edx, edx
  ...[0x66, 0xb8, 0, 0x70, 0, 0], // mov eax, 0x7000
  ...[0x66, 0xb9, 0xf3, 0, 0, 0x40], // mov ecx, SEND_BUFFER
  ...[0x0f, 0x30], // wrmsr
  ...[0x66, 0xb8, 1, 0, 5, 0], // mov eax, 5 << 16 | SEND
  ...[0x66, 0xb9, 0xf1, 0, 0, 0x40], // mov ecx, CONTROL
  ...[0x0f, 0x30], // wrmsr
  ...[0x66, 0xb9, 0xf2, 0, 0, 0x40], // mov ecx, STATUS
  ...[0x0f, 0x32], // rdmsr
  ...[0xe6, 0xf4], // out 0xf4, al
];

/** Runs an image on the interpreter, of which there is nothing to say. */
function runInterpreted(...args: string[]): ReturnType<typeof runCli> {
  return runCli("run", "--backend", "interp", ...args);
}

Deno.test("run ends with the guest's debug exit code", async () => {
  await withImage(EXIT_3, async (path) => {
    const { code, stdout, stderr } = await runInterpreted(path);
    assertEquals({ code, stdout, stderr }, { code: 7, stdout: "", stderr: "" });
  });
});

Deno.test("run puts the guest's serial output on stdout", async () => {
  // mov dx, 0x3f8; mov al, 'H'; out dx, al; mov al, 'i'; out dx, al
  const hi = [0xba, 0xf8, 3, 0xb0, 0x48, 0xee, 0xb0, 0x69, 0xee, ...EXIT_3];
  await withImage(hi, async (path) => {
    assertEquals((await runCli("run", path)).stdout, "Hi");
  });
});

Deno.test("run ends with 124 when the time is over", async () => {
  await withImage(SPIN, async (path) => {
    assertEquals((await runCli("run", path, "--timeout", "100ms")).code, 124);
  });
});

Deno.test("run ends with 3 and the vCPU's state on a triple fault", async () => {
  await withImage(TRIPLE_FAULT, async (path) => {
    const { code, stderr } = await runCli("run", path);
    assertEquals(code, 3);
    assertStringIncludes(stderr, "triple fault");
    assertStringIncludes(stderr, "rip    0000000000007c05");
  });
});

Deno.test("run ends with 130 on Ctrl-C while the guest spins", async () => {
  // Says on the serial port that it has begun: mov dx, 0x3f8; mov al, '!'; out dx, al
  await withImage([0xba, 0xf8, 3, 0xb0, 0x21, 0xee, ...SPIN], async (path) => {
    const process = startCli(["run", path]);
    const reader = process.stdout.getReader();
    const first = await reader.read();
    assertEquals(new TextDecoder().decode(first.value), "!");
    reader.releaseLock();
    process.kill("SIGINT");
    assertEquals((await finishCli(process)).code, 130);
  });
});

Deno.test("run traces the SynDbg MSRs as text and as JSON", async () => {
  await withImage(READ_STATUS, async (path) => {
    const text = await runInterpreted(path, "--trace");
    assertEquals(
      text.stderr,
      "kvm_hv_syndbg_get_msr: vcpu_id 0 vp_index 0 msr 0x400000f2 data 0x0\n",
    );
    assertEquals(text.code, 7);
    const json = await runInterpreted(path, "--trace=json");
    assertEquals(JSON.parse(json.stderr), {
      event: "kvm_hv_syndbg_get_msr",
      vcpu_id: 0,
      vp_index: 0,
      msr: "0x400000f2",
      data: "0x0",
      fault: false,
    });
  });
});

Deno.test("run --no-syndbg leaves the guest with #GP", async () => {
  await withImage(READ_STATUS, async (path) => {
    const { stderr } = await runCli(
      "run",
      path,
      "--no-syndbg",
      "--trace",
      "--timeout",
      "100ms",
    );
    assertStringIncludes(stderr, "msr 0x400000f2 data 0x0 #GP");
  });
});

Deno.test("run --debug udp sends the guest's packet to the debugger", async () => {
  const socket = createSocket("udp4");
  await new Promise<void>((resolve) => socket.bind(0, "127.0.0.1", resolve));
  try {
    const packet = new Promise<string>((resolve) =>
      socket.once("message", (data: Buffer) => resolve(data.toString()))
    );
    await withImage(SEND_HELLO, async (path) => {
      const debug = `udp:127.0.0.1:${socket.address().port}`;
      const { code } = await runCli("run", path, "--debug", debug);
      // STATUS says "sent", and the exit port makes 3 of 1.
      assertEquals(code, 3);
    });
    assertEquals(await packet, "hello");
  } finally {
    await new Promise<void>((resolve) => socket.close(() => resolve()));
  }
});

Deno.test("run --debug pcap writes a capture", async () => {
  const capture = await Deno.makeTempFile();
  try {
    await withImage(SEND_HELLO, async (path) => {
      await runCli("run", path, "--debug", `pcap:${capture}`);
    });
    const bytes = await Deno.readFile(capture);
    assertEquals(bytes.length, 24 + 16 + 20 + 8 + 5);
    assertEquals(new TextDecoder().decode(bytes.subarray(-5)), "hello");
  } finally {
    await Deno.remove(capture);
  }
});

Deno.test("run --debug kd ends when the guest does, and when the console does", async () => {
  await withImage(EXIT_3, async (path) => {
    const { code } = await runCli("run", path, "--debug", "kd", "-c", "r");
    assertEquals(code, 7);
  });
  await withImage(SPIN, async (path) => {
    const ended = await runCli("run", path, "--debug", "kd:1.2.3.5");
    assertEquals(ended.code, 0);
    const args = ["-c", "r", "--timeout", "200ms"];
    assertEquals(
      (await runCli("run", path, "--debug", "kd", ...args)).code,
      124,
    );
  });
});

Deno.test("run survives a debugger's port where nobody listens", async () => {
  await withImage(SEND_HELLO, async (path) => {
    const { code, stderr } = await runInterpreted(path, "--debug", "udp::9");
    assertEquals({ code, stderr }, { code: 3, stderr: "" });
  });
});

Deno.test("run answers bad usage and bad images with one line and 2", async () => {
  // An ELF magic and nothing behind it.
  await withImage([0x7f, 0x45, 0x4c, 0x46], async (path) => {
    const cases = [
      ["run", path],
      ["run", "/nonexistent"],
      ["run", "/"],
      ["run", path, "more"],
      ["run", "--unknown"],
      ["run", "--memory", "1"],
      ["run", "--memory", "100G"],
      ["run", "--cpus", "0"],
      ["run", "--cpus", "256"],
      ["run", "--cpus", "two"],
      ["run", "--backend", "none"],
      ["run", "--mode", "x"],
      ["run", "--guest", "x"],
      ["run", path, "--guest", "demo"],
      ["run", "--debug", "tcp:1"],
      ["run", "--debug", "udp:1", "--debug", "udp:2"],
      ["run", "--debug", "pcap:/nonexistent/x"],
      ["run", "--debug", "kd:1.2.3"],
      ["run", "--debug", "kd", "--debug", "udp:1"],
      ["run", "-c", "r"],
      ["run", "--trace=xml"],
      ["run", "--timeout", "soon"],
      ["run", "--entry", "x"],
      ["nonsense"],
      ["--nonsense"],
      ["cpuid", "--profile", "xen"],
      ["doctor", "now"],
    ];
    for (const args of cases) {
      const { code, stdout, stderr } = await runCli(...args);
      assertEquals(code, 2, args.join(" "));
      assertEquals(stdout, "", args.join(" "));
      assertEquals(stderr.trimEnd().split("\n").length, 1, stderr);
      assert(stderr.startsWith("Cannot "), stderr);
    }
  });
});

Deno.test("run says in one line which backend it took by itself", async () => {
  await withImage([0xf4], async (path) => {
    const { code, stderr } = await runCli("run", path, "--address", "0x7c00");
    assertEquals(code, 0);
    assert(/^syndbg: backend (interp|kvm): .+\n/.test(stderr), stderr);
  });
});
