import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import config from "../../deno.json" with { type: "json" };
import { runCli } from "./_cli.ts";

Deno.test("every command has --help", async () => {
  for (const command of ["demo", "run", "doctor", "cpuid"]) {
    const { code, stdout, stderr } = await runCli(command, "--help");
    assertEquals({ code, stderr }, { code: 0, stderr: "" });
    assertStringIncludes(stdout, `Usage: syndbg ${command}`);
    assertEquals((await runCli("help", command)).stdout, stdout);
  }
  const { code, stdout } = await runCli("--help");
  assertEquals(code, 0);
  assertStringIncludes(stdout, "Commands:");
});

Deno.test("--version prints the package's version", async () => {
  const { code, stdout } = await runCli("--version");
  assertEquals({ code, stdout }, {
    code: 0,
    stdout: `syndbg ${config.version}\n`,
  });
});

Deno.test("doctor says which backends there are and which is taken", async () => {
  const { code, stdout } = await runCli("doctor");
  assertEquals(code, 0);
  assert(/^interp +yes/m.test(stdout), stdout);
  assert(/^kvm +(yes|no)/m.test(stdout), stdout);
  assert(/^auto +takes (interp|kvm)/m.test(stdout), stdout);
});

Deno.test("cpuid decodes the leaves, with SynDbg and without", async () => {
  const { code, stdout } = await runCli("cpuid");
  assertEquals(code, 0);
  assertStringIncludes(stdout, `"Microsoft Hv"`);
  assertStringIncludes(stdout, `"VS#1"`);
  assertStringIncludes(stdout, "guest debugging");
  const without = (await runCli("cpuid", "--no-syndbg")).stdout;
  assert(!without.includes("VS#1"));
  assert(!without.includes("debug"));
});

Deno.test("demo shows packets both ways and ends with 0", async () => {
  for (const mode of ["msr", "hypercall"]) {
    const { code, stdout, stderr } = await runCli("demo", "--mode", mode);
    assertEquals({ code, stderr }, { code: 0, stderr: "" }, stdout);
    assertStringIncludes(stdout, "packet guest -> debugger");
    assertStringIncludes(stdout, "packet debugger -> guest");
    assertStringIncludes(stdout, "trace  kvm_hv_");
    assertStringIncludes(stdout, "summary: ");
  }
});
