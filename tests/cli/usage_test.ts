import { assertEquals, assertThrows } from "@std/assert";
import {
  parseAddress,
  parseDuration,
  parseEndpoint,
  parseOptions,
  parseSize,
  UsageError,
} from "../../cli/usage.ts";
import { hexDump } from "../../cli/hex_dump.ts";

const NAMES = {
  boolean: ["no-syndbg"],
  string: ["memory"],
  collect: ["debug"],
  optional: { trace: "text" },
};

Deno.test("parseOptions() tells options, values and positional arguments apart", () => {
  const options = parseOptions("run", [
    "--trace",
    "a.elf",
    "--memory",
    "64M",
    "--debug=none",
    "--debug",
    "pcap:x",
    "--no-syndbg",
    "12",
  ], NAMES);
  assertEquals(options.positional, ["a.elf", "12"]);
  assertEquals(options.value("trace"), "text");
  assertEquals(options.value("memory"), "64M");
  assertEquals(options.values("debug"), ["none", "pcap:x"]);
  assertEquals(options.flag("no-syndbg"), true);
  assertEquals(options.flag("help"), false);
});

Deno.test("parseOptions() gives what was not named as undefined or empty", () => {
  const options = parseOptions("run", [], NAMES);
  assertEquals(options.value("trace"), undefined);
  assertEquals(options.value("memory"), undefined);
  assertEquals(options.values("debug"), []);
});

Deno.test("parseOptions() refuses unknown options and missing values", () => {
  for (const args of [["--bad"], ["-x"], ["--memory"], ["--debug"]]) {
    assertThrows(() => parseOptions("run", args, NAMES), UsageError);
  }
});

Deno.test("parseSize() takes bytes, K, M and G", () => {
  assertEquals(parseSize("memory", "65536"), 65_536);
  assertEquals(parseSize("memory", "4k"), 4096);
  assertEquals(parseSize("memory", "64M"), 64 * 2 ** 20);
  assertEquals(parseSize("memory", "1G"), 2 ** 30);
  for (const text of ["", "M", "-1", "1T", "1.5M", "9".repeat(30)]) {
    assertThrows(() => parseSize("memory", text), UsageError);
  }
});

Deno.test("parseDuration() takes seconds, milliseconds and minutes", () => {
  assertEquals(parseDuration("timeout", "10"), 10_000);
  assertEquals(parseDuration("timeout", "1.5s"), 1500);
  assertEquals(parseDuration("timeout", "500ms"), 500);
  assertEquals(parseDuration("timeout", "2m"), 120_000);
  for (const text of ["", "0", "s", "-1s", "1h", "99999999999"]) {
    assertThrows(() => parseDuration("timeout", text), UsageError);
  }
});

Deno.test("parseAddress() takes decimal and hexadecimal numbers", () => {
  assertEquals(parseAddress("entry", "0x7C00"), 0x7c00);
  assertEquals(parseAddress("entry", "512"), 512);
  for (const text of ["", "0x", "7c00", "-1", "1e3"]) {
    assertThrows(() => parseAddress("entry", text), UsageError);
  }
});

Deno.test("parseEndpoint() fills in QEMU's defaults", () => {
  const cases: [string, string, number][] = [
    ["", "127.0.0.1", 50_000],
    ["10.0.0.2", "10.0.0.2", 50_000],
    [":1234", "127.0.0.1", 1234],
    ["host:1", "host", 1],
    ["[::1]:65535", "::1", 65_535],
    ["[fe80::1]", "fe80::1", 50_000],
  ];
  for (const [text, host, port] of cases) {
    assertEquals(parseEndpoint("debug", text), { host, port });
  }
  for (const text of ["h:0", "h:65536", "h:x", "a:b:c", "::1"]) {
    assertThrows(() => parseEndpoint("debug", text), UsageError);
  }
});

Deno.test("hexDump() shows offset, hexadecimal and ASCII", () => {
  const bytes = new Uint8Array([...new TextEncoder().encode("SynDbg\x00\xff")]);
  assertEquals(
    hexDump(bytes, "  "),
    "  0000  53 79 6e 44 62 67 00 c3 bf                       SynDbg...",
  );
  assertEquals(hexDump(new Uint8Array(17)).split("\n").length, 2);
  assertEquals(hexDump(new Uint8Array(0)), "");
});
