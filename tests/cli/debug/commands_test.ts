import { assert, assertEquals, assertRejects } from "@std/assert";
import { commandHelp, splitCommands } from "../../../cli/debug/commands.ts";
import { loadDisassembler } from "../../../cli/debug/disassembler.ts";
import { CommandError } from "../../../cli/debug/shell.ts";
import { printed, runCommands, values } from "./_session.ts";

const HELLO = (target: { cpu: { memory: Uint8Array } }): void => {
  target.cpu.memory.set(new TextEncoder().encode("Hello\0"), 0x1000);
  target.cpu.memory.set(Uint8Array.fromHex("480069000000"), 0x1100);
  target.cpu.memory.set(Uint8Array.fromHex("2100100000000000"), 0x1200);
};

Deno.test("a line is parted at semicolons, not in quotes", () => {
  assertEquals(splitCommands('r; .sym "a;b" 10 ;; g'), [
    "r",
    '.sym "a;b" 10',
    "g",
  ]);
  assertEquals(splitCommands(""), []);
});

Deno.test("memory is dumped as bytes, numbers, text and pointers", async () => {
  assertEquals(await printed("db 101000 L14", HELLO), [
    "00000000`00101000  48 65 6c 6c 6f 00 00 00-00 00 00 00 00 00 00 00  Hello...........",
    "00000000`00101010  00 00 00 00                                      ....",
  ]);
  assertEquals(
    await printed("dw 101000 L2; dd 101000 L2; dq 101000 L1; dd L1", HELLO),
    [
      "00000000`00101000  6548 6c6c",
      "00000000`00101000  6c6c6548 0000006f",
      "00000000`00101000  0000006f`6c6c6548",
      "00000000`00101008  00000000",
    ],
  );
  assertEquals(
    await printed("da 101000; du 101100; dps 101200 L1; !db 101000 L2", HELLO),
    [
      '00000000`00101000  "Hello"',
      '00000000`00101100  "Hi"',
      "00000000`00101200  00000000`00100021 f+0x1",
      "00000000`00101000  48 65                                            He",
    ],
  );
  assertEquals(await printed("dd 10fffc L4"), [
    "00000000`0010fffc  00000000",
    "00000000`00110000  ??",
  ]);
});

Deno.test("memory, registers and MSRs are changed", async () => {
  assertEquals(
    await printed(
      "eb 101000 1 2 0n10; ew 101010 1234; ed 101020 12345678; eq 101030 1; db 101000 L3; dw 101010 L1; dd 101020 L1; dq 101030 L1",
    ),
    [
      "00000000`00101000  01 02 0a                                         ...",
      "00000000`00101010  1234",
      "00000000`00101020  12345678",
      "00000000`00101030  00000000`00000001",
    ],
  );
  assertEquals(
    await printed(
      "r rax=main+1; r rax,rip; r @$ip; wrmsr 10 fffff800`00000001; rdmsr 10; r cr3",
    ),
    [
      "rax=0000000000100001",
      "rip=0000000000100000",
      "$ip=0000000000100000",
      "msr[10] = fffff800`00000001",
      "cr3=0000000000001000",
    ],
  );
});

Deno.test("registers are shown as WinDbg shows them", async () => {
  assertEquals(await printed("r"), [
    "rax=0000000000000000 rbx=0000000000000000 rcx=0000000000000000",
    "rdx=0000000000000000 rsi=0000000000000000 rdi=0000000000000000",
    "rip=0000000000100000 rsp=0000000000110000 rbp=0000000000000000",
    " r8=0000000000000000  r9=0000000000000000 r10=0000000000000000",
    "r11=0000000000000000 r12=0000000000000000 r13=0000000000000000",
    "r14=0000000000000000 r15=0000000000000000",
    "iopl=0         nv up di pl nz na po nc",
    "cs=0010  ss=0000  ds=0000  es=0000  fs=0000  gs=0000             efl=00000002",
    "main:",
    "00000000`00100000 55              push rbp",
  ]);
});

Deno.test("breakpoints, stepping and the stack", async () => {
  assertEquals(
    await printed("bp g; g; k 3; bl; bd 0; g f+9; p; bc *; bl; t 2"),
    [
      "Breakpoint 0 hit",
      "g:",
      "00000000`00100040 55              push rbp",
      " # Child-SP          RetAddr           Call Site",
      "00 00000000`0010ffe0 00000000`00100029 g",
      "01 00000000`0010ffe8 00000000`00100009 f+0x9",
      "02 00000000`0010fff8                   loop+0x5",
      " 0 e 00000000`00100040 1 hits g",
      "Break instruction exception - code 80000003 (first chance)",
      "f+0x9:",
      "00000000`00100029 5d              pop rbp",
      "f+0xa:",
      "00000000`0010002a c3              ret",
      "loop+0x5:",
      "00000000`00100009 90              nop",
      "loop+0x6:",
      "00000000`0010000a eb              ??",
    ],
  );
});

Deno.test("code is disassembled with symbols, and goes on where it ended", async () => {
  assertEquals(await printed("u loop L2; u L1; u f L1"), [
    "loop:",
    "00000000`00100004 e817000000      call 100020h (f)",
    "00000000`00100009 90              nop",
    "loop+0x6:",
    "00000000`0010000a eb              ??",
    "f:",
    "00000000`00100020 55              push rbp",
  ]);
});

Deno.test("symbols, expressions and the target are shown", async () => {
  assertEquals(
    await printed(
      "? f-main; x ?; ln f+2; ln 900000; s main L100 48 ff c0; s main L8 77",
    ),
    [
      "Evaluate expression: 32 = 00000000`00000020",
      "00000000`00100020 f",
      "00000000`00100040 g",
      "(00000000`00100022) f+0x2",
      "no symbol is near",
      "00000000`00100044",
    ],
  );
  assertEquals(
    (await printed("vertarget"))[0],
    "Version 15.1, machine 0x8664, 1 processor(s), protocol 6",
  );
  assertEquals(await printed(".help"), commandHelp().split("\n"));
});

Deno.test("results for a program have hexadecimal text and no formatting", async () => {
  assertEquals(
    await values(
      "? 10; db main L2; dd main L1; bp f; g; r rip; u f L1; rdmsr 1b",
    ),
    [
      "0x10",
      { address: "0x100000", bytes: "5548" },
      { address: "0x100000", values: ["0xe5894855"] },
      { id: 0, address: "0x100020", enabled: true, hits: 0 },
      {
        state: "breakpoint",
        code: "0x80000003",
        pc: "0x100020",
        processor: 0,
        symbol: "f",
        breakpoint: 0,
        instruction: "push rbp",
      },
      { rip: "0x100020" },
      [{ address: "0x100020", bytes: "55", text: "push rbp" }],
      { msr: "0x1b", value: "0xfee00900" },
    ],
  );
});

Deno.test("a bug check and a restart are survived", async () => {
  const results = await values(".crash; .reboot; .break; .runfor 5");
  assertEquals(
    results.map((value) => (value as { state?: string }).state),
    ["break", undefined, "break", "break"],
  );
});

Deno.test("commands that cannot be are refused with one line", async () => {
  const cases = [
    "nonsense",
    "constructor",
    "!",
    "db nix",
    "db main L0",
    "db main L200000",
    "dq main L100000",
    "eb main",
    "eb main 100",
    "r nix",
    "r nix=1",
    "bc 7",
    "t 0",
    "~5s",
    ".sym",
    ".sym /nonexistent",
    ".sym /",
    ".runfor soon",
    "rdmsr 100000000",
    "s main",
    "? ",
  ];
  for (const command of cases) {
    const error = await assertRejects(
      () => runCommands(command),
      CommandError,
      "Cannot ",
    );
    assertEquals(error.message.includes("\n"), false, command);
  }
});

Deno.test("iced-x86 disassembles", async () => {
  const disassembler = await loadDisassembler();
  if (disassembler === undefined) {
    if (Deno.env.get("SYNDBG_REQUIRE_ALL")) {
      throw new Error("npm:iced-x86 cannot be loaded");
    }
    console.log("skipped: npm:iced-x86 cannot be loaded");
    return;
  }
  const decode = (hex: string): unknown =>
    disassembler.decode(Uint8Array.fromHex(hex), 0x1000n, 64);
  assertEquals(decode("4889e5"), {
    length: 3,
    text: "mov rbp,rsp",
    target: undefined,
  });
  assertEquals(decode("e810000000"), {
    length: 5,
    text: "call 0000000000001015h",
    target: 0x1015n,
  });
  assertEquals(
    (decode("488b0510000000") as { target: bigint }).target,
    0x1017n,
  );
  assertEquals(decode("06"), undefined);
  assertEquals(decode("48"), undefined);
  assert(disassembler.decode(new Uint8Array([6]), 0n, 32) !== undefined);
});
