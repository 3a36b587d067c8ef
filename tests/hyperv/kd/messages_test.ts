import { assertEquals, assertThrows } from "@std/assert";
import {
  AMD64_CONTEXT_LAYOUT,
  AMD64_CONTEXT_LENGTH,
  AMD64_SPECIAL_LAYOUT,
  AMD64_SPECIAL_LENGTH,
  contextRegisters,
  KdMachine,
  specialRegisters,
  X86_CONTEXT_LAYOUT,
  X86_CONTEXT_LENGTH,
  X86_SPECIAL_LAYOUT,
  X86_SPECIAL_LENGTH,
} from "../../../hyperv/kd/context.ts";
import { describeKd, formatKd } from "../../../hyperv/kd/describe.ts";
import { type Layout, layoutSize } from "../../../hyperv/kd/layout.ts";
import {
  encodeReply,
  encodeRequest,
  MANIPULATE,
  MANIPULATE_HEADER,
  type ManipulateName,
  parseManipulate,
  replyFields,
  requestFields,
} from "../../../hyperv/kd/manipulate.ts";
import {
  encodeKdControl,
  encodeKdPacket,
  encodeOpening,
  KD_BREAK_IN,
  KdPacketType,
  parseKdContent,
} from "../../../hyperv/kd/packet.ts";
import {
  encodeStateChange,
  KdStateChange,
  parseStateChange,
} from "../../../hyperv/kd/state_change.ts";
import {
  encodeDebugIo,
  encodeFileAnswer,
  encodeFileCreate,
  encodePromptAnswer,
  parseDebugIo,
  parseFileIo,
} from "../../../hyperv/kd/target_io.ts";

function line(type: number, payload: Uint8Array, fromTarget: boolean): string {
  const bytes = encodeKdPacket(type, 2, payload);
  return formatKd(describeKd(parseKdContent(bytes), fromTarget));
}

Deno.test("KD packets are written as the published vectors say, and read again", () => {
  const payload = new Uint8Array([1, 2, 3, 4, 5]);
  const data = encodeKdPacket(2, 0x8080_0800, payload);
  assertEquals(data.toHex(), "3030303002000500000880800f0000000102030405");
  const packet = { control: false, type: 2, id: 0x8080_0800, payload };
  assertEquals(parseKdContent(data), { kind: "packet", packet });
  const acknowledge = encodeKdControl(KdPacketType.Acknowledge, 0x8080_0000);
  assertEquals(acknowledge.toHex(), "69696969040000000000808000000000");
  assertEquals(parseKdContent(KD_BREAK_IN), { kind: "break-in" });
  assertEquals(parseKdContent(encodeOpening(0xc0a8_0201)), {
    kind: "opening",
    ipv4: 0xc0a8_0201,
  });
});

Deno.test("damaged KD packets are invalid, and a serial trailer does not matter", () => {
  const data = encodeKdPacket(2, 0, new Uint8Array([1, 2, 3]));
  const trailer = new Uint8Array([...data, 0xaa]);
  assertEquals(parseKdContent(trailer).kind, "packet");
  for (let length = 0; length < data.length; length++) {
    assertEquals(parseKdContent(data.subarray(0, length)).kind, "invalid");
  }
  data[16]!++;
  assertEquals(parseKdContent(data), {
    kind: "invalid",
    reason: "wrong checksum",
  });
});

Deno.test("every call's fields lie in the header and come back", () => {
  for (const name of Object.keys(MANIPULATE) as ManipulateName[]) {
    const { request, reply, number } = MANIPULATE[name];
    const values = (layout: Layout): Record<string, number | bigint> =>
      Object.fromEntries(
        Object.entries(layout).map(([field, [offset, type]]) => [
          field,
          type === "u64" ? 2n ** 63n + BigInt(offset) : offset + 1,
        ]),
      );
    const data = new Uint8Array([7, 8]);
    for (const layout of [request, reply ?? {}]) {
      assertEquals(layoutSize(layout) <= MANIPULATE_HEADER, true, name);
    }
    const asked = parseManipulate(
      encodeRequest(name, values(request), data, { processor: 3, level: 6 }),
    )!;
    assertEquals(requestFields(name, asked.header), values(request) as never);
    const { api, level, processor, status } = asked;
    assertEquals(
      { api, level, processor, status },
      { api: number, level: 6, processor: 3, status: 0x103 },
    );
    assertEquals(asked.data, data);
    const answer = values(reply ?? {}) as never;
    const answered = parseManipulate(encodeReply(name, 0xc000_0001, answer))!;
    assertEquals(replyFields(name, answered.header), answer);
    assertEquals(answered.status, 0xc000_0001);
    assertEquals(answered.name, name);
  }
});

Deno.test("the version that Windows 10's boot debugger reports is read", () => {
  const payload = new Uint8Array(MANIPULATE_HEADER);
  payload.set(Uint8Array.fromHex("46310000"));
  payload.set(
    Uint8Array.fromHex(
      "0f045a2906020200" + "64860c3259000000" + "00f0960000000000" +
        "605ead0000000000" + "0000000000000000",
    ),
    16,
  );
  const { name, header } = parseManipulate(payload)!;
  assertEquals(name, "GetVersion");
  assertEquals(replyFields("GetVersion", header), {
    major: 0x40f,
    minor: 10586,
    protocol: 6,
    secondary: 2,
    flags: 2,
    machine: KdMachine.Amd64,
    maxPacketType: 12,
    maxStateChange: 0x32,
    maxManipulate: 0x59,
    simulation: 0,
    kernelBase: 0x96_f000n,
    loadedModuleList: 0xad_5e60n,
    debuggerDataList: 0n,
  });
});

Deno.test("state changes are read as they were written", () => {
  const exception = parseStateChange(encodeStateChange({
    state: KdStateChange.Exception,
    processor: 1,
    processors: 2,
    programCounter: 0xffff_8000_0000_1000n,
    exception: { code: 0x8000_0003, parameterCount: 99, firstChance: 1 },
    report: { dr7: 0x400n, instructions: new Uint8Array(20).fill(0x90) },
  }))!;
  assertEquals(exception.programCounter, 0xffff_8000_0000_1000n);
  assertEquals(exception.exception?.code, 0x8000_0003);
  // Fifteen there are at most, whatever the count says.
  assertEquals(exception.exception?.parameters.length, 15);
  assertEquals(exception.report.instructions, new Uint8Array(16).fill(0x90));
  const image = parseStateChange(encodeStateChange({
    state: KdStateChange.LoadSymbols,
    image: { path: "winload.efi", base: 0x96_f000n, size: 0x1000 },
  }))!;
  assertEquals(image.image, {
    path: "winload.efi",
    base: 0x96_f000n,
    size: 0x1000,
    processId: 0n,
    checksum: 0,
    unload: 0,
  });
  const command = new Uint8Array(252);
  new DataView(command.buffer).setUint32(0, KdStateChange.CommandString, true);
  command.set(new TextEncoder().encode("who\0do it\0"), 240);
  assertEquals(parseStateChange(command)?.command, {
    name: "who",
    text: "do it",
  });
});

Deno.test("contexts have Windows' lengths, and registers are set by name", () => {
  const rows = [
    [KdMachine.Amd64, AMD64_CONTEXT_LENGTH, AMD64_CONTEXT_LAYOUT, "rip", 64],
    [KdMachine.X86, X86_CONTEXT_LENGTH, X86_CONTEXT_LAYOUT, "eip", 32],
  ] as const;
  for (const [machine, length, layout, pc, width] of rows) {
    const context = contextRegisters(machine, new Uint8Array(length));
    context.set(pc, -1n);
    assertEquals(context.get(pc), 2n ** BigInt(width) - 1n);
    assertEquals(context.width(pc), width);
    assertEquals(context.names, Object.keys(layout));
    assertThrows(
      () => context.get("nix"),
      RangeError,
      "Cannot use register nix",
    );
    assertThrows(
      () => contextRegisters(machine, new Uint8Array(100)),
      RangeError,
      "Cannot read registers: 100 bytes",
    );
  }
  assertThrows(
    () => contextRegisters(0xaa64, new Uint8Array(2000)),
    RangeError,
    "Cannot read registers: machine 0xaa64",
  );
  assertEquals(layoutSize(AMD64_SPECIAL_LAYOUT), AMD64_SPECIAL_LENGTH);
  assertEquals(layoutSize(X86_SPECIAL_LAYOUT) <= X86_SPECIAL_LENGTH, true);
  const special = specialRegisters(KdMachine.Amd64, new Uint8Array(0xe0));
  assertEquals(special.has("cr3"), true);
});

Deno.test("prints, prompts and files are read as they were written", () => {
  assertEquals(parseDebugIo(encodeDebugIo("hi\n"))?.text, "hi\n");
  const prompt = parseDebugIo(encodeDebugIo("name? ", 4))!;
  assertEquals(prompt.maximum, 4);
  const answer = encodePromptAnswer(prompt, "Robert");
  assertEquals(answer.length, 20);
  const create = encodeFileCreate("\\driver.sys");
  assertEquals(parseFileIo(create)?.create?.name, "\\driver.sys");
  assertEquals(parseFileIo(encodeFileAnswer(create, 5))?.status, 5);
});

Deno.test("messages are described in one line", () => {
  const lines = [
    line(KdPacketType.DebugIo, encodeDebugIo("a\n"), true),
    line(
      KdPacketType.DebugIo,
      encodePromptAnswer(parseDebugIo(encodeDebugIo("?", 9))!, "yes"),
      false,
    ),
    line(
      KdPacketType.StateManipulate,
      encodeRequest("ReadVirtualMemory", { address: 0x1000n, count: 16 }),
      false,
    ),
    line(
      KdPacketType.StateManipulate,
      encodeReply(
        "ReadVirtualMemory",
        0,
        { address: 0x1000n, count: 16, actual: 3 },
        new Uint8Array(3),
      ),
      true,
    ),
    line(
      KdPacketType.StateChange64,
      encodeStateChange({
        state: KdStateChange.LoadSymbols,
        image: { path: "a.exe", base: 1n },
      }),
      true,
    ),
    line(KdPacketType.FileIo, encodeFileCreate("\\x"), true),
    line(KdPacketType.TraceIo, new Uint8Array(4), true),
    line(99, new Uint8Array(4), true),
    formatKd(describeKd(parseKdContent(encodeKdControl(6, 0x62)), true)),
    formatKd(describeKd({ kind: "break-in" }, false)),
  ];
  assertEquals(lines, [
    'PrintString id 0x2 processor 0x0 "a\\n"',
    'GetString id 0x2 processor 0x0 "yes"',
    "ReadVirtualMemory id 0x2 address 0x1000 count 0x10 processor 0x0",
    "ReadVirtualMemory id 0x2 address 0x1000 count 0x10 actual 0x3 processor 0x0 status 0x0 data 3 bytes",
    'LoadSymbols id 0x2 base 0x1 processId 0x0 checksum 0x0 size 0x0 unload 0x0 processor 0x0 programCounter 0x0 thread 0x0 "a.exe"',
    'CreateFile id 0x2 access 0x0 attributes 0x0 share 0x0 disposition 0x0 options 0x0 handle 0x0 length 0x0 "\\\\x"',
    "TraceIo id 0x2 (cut off: 4 bytes)",
    "Packet 0x63 id 0x2 data 4 bytes",
    "Reset id 0x62",
    "BreakIn",
  ]);
});
