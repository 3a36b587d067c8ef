/**
 * Debian's kernel for virtual machines, as it is in its package, on the interpreter.
 */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import {
  CACHE,
  entry,
  exists,
  fetchKernel,
  find,
  PartMissing,
  run,
} from "../_debian_kernel.ts";
import { listenUdp } from "../../hyperv/transports/udp_listen_node.ts";
import { cpio } from "./cpio.ts";

const MAIN = new URL("../../cli/main.ts", import.meta.url).pathname;
const JOB = new URL("job.sh", import.meta.url);
const INIT = new URL("init.sh", import.meta.url);

/** Kernel modules, and where they are in the package. */
const MODULES = [
  "arch/x86/kernel/msr.ko",
  "drivers/virtio/virtio_mmio.ko",
  "drivers/block/virtio_blk.ko",
];

interface Parts {
  kernel: string;
  /** The kernel's modules. */
  modules: string;
  busybox: string;
  /** What `init.sh` runs as `syndbg`. */
  program: Uint8Array;
}

/** Builds the program that uses SynDbg. */
async function buildProgram(): Promise<Uint8Array> {
  const compiler = await find("gcc");
  const path = await Deno.makeTempFile();
  const source = new URL("syndbg.c", import.meta.url).pathname;
  try {
    await run(compiler, ["-static", "-O2", "-o", path, source]);
    return await Deno.readFile(path);
  } finally {
    await Deno.remove(path);
  }
}

/** What the test is made of, or what is missing for it. */
async function prepare(): Promise<Parts | string> {
  if (Deno.env.has("SYNDBG_NESTED")) return "this is the nested guest";
  try {
    const busybox = await find("busybox");
    if ((await Deno.readTextFile(busybox)).includes("/lib64/ld-linux")) {
      throw new PartMissing("busybox is not busybox-static");
    }
    const folder = await fetchKernel();
    return {
      kernel: await entry(`${folder}/boot`, /^vmlinuz/),
      modules: `${await entry(`${folder}/lib/modules`, /./)}/kernel`,
      busybox,
      program: await buildProgram(),
    };
  } catch (error) {
    if (
      !(error instanceof PartMissing) || Deno.env.has("SYNDBG_REQUIRE_ALL")
    ) throw error;
    return error.message;
  }
}

/** A module's file; newer kernels have them compressed. */
async function readModule(path: string): Promise<Uint8Array> {
  if (await exists(path)) return await Deno.readFile(path);
  const { stdout } = await new Deno.Command("busybox", {
    args: ["xzcat", `${path}.xz`],
  }).output();
  return stdout;
}

/** The RAM disk. */
async function buildInitramfs(
  { busybox, modules, program }: Parts,
): Promise<Uint8Array> {
  return await cpio([
    { path: "bin" },
    { path: "bin/busybox", data: await Deno.readFile(busybox) },
    { path: "bin/syndbg", data: program },
    { path: "init", data: await Deno.readFile(INIT) },
    { path: "job.sh", data: await Deno.readFile(JOB) },
    { path: "modules" },
    ...await Promise.all(MODULES.map(async (module) => ({
      path: `modules/${module.split("/").at(-1)}`,
      data: await readModule(`${modules}/${module}`),
    }))),
  ]);
}

const parts = await prepare();
if (typeof parts === "string") console.log(`Skipped: Linux guest: ${parts}`);
const ignore = typeof parts === "string";

interface Ended {
  code: number;
  stdout: string;
  /** For whoever looks for a failure. */
  all: string;
}

/** Boots the kernel on the interpreter, with the RAM disk. */
async function boot(append: string, ...options: string[]): Promise<Ended> {
  const initramfs = await Deno.makeTempFile({ dir: CACHE });
  try {
    await Deno.writeFile(initramfs, await buildInitramfs(parts as Parts));
    const { code, stdout, stderr } = await new Deno.Command(Deno.execPath(), {
      args: [
        ...["run", "-A", "--quiet", MAIN, "run", "--backend", "interp"],
        ...["--linux", (parts as Parts).kernel, "--initrd", initramfs],
        ...["--append", `console=ttyS0 loglevel=3 panic=-1 ${append}`],
        ...["--timeout", "15m", ...options],
      ],
      stdin: "null",
    }).output();
    const text = new TextDecoder().decode(stdout).replaceAll("\r", "");
    const errors = new TextDecoder().decode(stderr);
    return { code, stdout: text, all: `${text}\n${errors}` };
  } finally {
    await Deno.remove(initramfs);
  }
}

Deno.test({
  name:
    "Debian's kernel boots in a Hyper-V partition, works, and powers off with 0",
  ignore,
  async fn() {
    const disk = await Deno.makeTempFile({ dir: CACHE });
    const peer = await listenUdp("127.0.0.1", 0);
    peer.onActivity = () => {
      const packet = peer.receive();
      if (packet === undefined) return;
      peer.reply(
        new TextEncoder().encode(
          `answer to ${new TextDecoder().decode(packet)}`,
        ),
      );
    };
    try {
      await Deno.writeTextFile(disk, "hello");
      await Deno.truncate(disk, 4096);
      const { code, stdout, all } = await boot(
        "",
        ...["--disk", disk, "--debug", `udp:127.0.0.1:${peer.port}`],
      );
      assertStringIncludes(
        all,
        "guest: Hypervisor detected: Microsoft Hyper-V\n",
      );
      assertStringIncludes(all, "guest: clocksource hyperv_clocksource_");
      assertStringIncludes(all, "guest: disk says hello\n");
      assertEquals(
        new TextDecoder().decode((await Deno.readFile(disk)).slice(512, 524)),
        "by the guest",
        all,
      );
      const talk = [...stdout.matchAll(/^guest: syndbg (.*)$/gm)];
      assertEquals(talk.map(([, line]) => line), [
        "leaves to 40000082 of Microsoft VS",
        "interface VS#1",
        "capabilities 2",
        "sent: yes",
        "received: answer to user space of Linux",
        "more: no",
      ], all);
      const done = /guest: job begins\n([^]*)guest: job ends\n/.exec(stdout)
        ?.[1];
      assertEquals(done, await run("busybox", ["sh", JOB.pathname]), all);
      // A timer of Hyper-V's, with its interrupts counted.
      assert(
        /^guest: interrupts +\w+: +[1-9]\d*.*Hyper-V.*timer/im.test(all),
        all,
      );
      assertEquals(code, 0, all);
    } finally {
      peer.close();
      await Deno.remove(disk);
    }
  },
});

Deno.test({
  name: "Debian's kernel tells of its panic by Hyper-V's crash MSRs",
  ignore,
  async fn() {
    const { code, all } = await boot("then=crash");
    assert(/^syndbg: guest crash:( 0x[0-9a-f]+){5}$/m.test(all), all);
    assertStringIncludes(all, "sysrq triggered crash");
    assertEquals(code, 0, all);
  },
});
