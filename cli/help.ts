const OVERVIEW =
  `syndbg: Hyper-V's synthetic debugger, on an x86 interpreter in TypeScript

Usage: syndbg [COMMAND] [OPTIONS]

Commands:
  demo     Boot the built-in guest and answer its debug packets (the default)
  run      Run a guest image
  doctor   Say which backends this machine offers, and why not
  cpuid    Print the CPUID leaves that a guest would see
  help     Print this, or the help of a command

Options:
  -h, --help  Print help
  --version   Print the version`;

const TEXTS: Record<string, string> = {
  demo: `Boot the built-in guest and answer its debug packets

Usage: syndbg demo [OPTIONS]

A debugger's end listens on a loopback UDP port in this process and answers
every packet. Printed are what the guest says on its serial port, each packet
both ways, the trace of the SynDbg MSRs, and a summary.

Options:
  --backend NAME  auto, interp or kvm (default auto)
  --mode MODE     msr or hypercall (default msr)
  --profile NAME  hyperv or kvm (default hyperv)
  -h, --help      Print help`,
  run: `Run a guest image

Usage: syndbg run [IMAGE] [OPTIONS]

IMAGE is a multiboot 1 kernel, an ELF program, or a flat binary (with
--address); without one the built-in demo guest runs. COM1 is standard input
and output, port 0xe9 text goes there too. A write of V to port 0xf4 ends the
run with exit code V * 2 + 1; HLT with interrupts off and a reset end it with 0.

Options:
  --backend NAME      auto, interp or kvm (default auto)
  --guest NAME        Built-in guest instead of an image: demo, or target, which a
                      KDNET debugger attaches to (key 1.2.3.4; --append
                      "key=W.X.Y.Z port=N" sets them)
  --memory SIZE       RAM, such as 64M (default 64M)
  --mode MODE         What OPTIONS tells the guest to use: msr or hypercall
                      (default msr)
  --debug WHERE       udp:HOST:PORT (default 127.0.0.1:50000), pcap:FILE or
                      none; may be repeated (default none)
  --profile NAME      hyperv or kvm (default hyperv)
  --no-syndbg         Show the guest no synthetic debugger
  --enforce-cpuid     Refuse what no CPUID bit offers
  --trace[=FORMAT]    Trace SynDbg and hypercalls to standard error: text or
                      json (default text)
  --timeout TIME      End after a time such as 10s, 500ms or 2m
  --address ADDRESS   Load IMAGE as a flat binary at this address
  --entry ADDRESS     Where to begin
  --entry-mode MODE   real, protected or long
  --append TEXT       Command line for a multiboot image
  --module FILE       Module for a multiboot image; may be repeated
  -h, --help          Print help

Exit codes: the guest's, 2 for bad usage or a bad image, 3 for a triple fault,
124 for a timeout, 130 for Ctrl-C.`,
  doctor: `Say which backends this machine offers, and why not

Usage: syndbg doctor`,
  cpuid: `Print the CPUID leaves that a guest would see, decoded

Usage: syndbg cpuid [OPTIONS]

Options:
  --profile NAME  hyperv or kvm (default hyperv)
  --vendor TEXT   Hypervisor's name (default "Microsoft Hv")
  --no-syndbg     Without the synthetic debugger
  -h, --help      Print help`,
};

/** The help of a command, or of the whole program. */
export function helpText(command?: string): string {
  return TEXTS[command ?? ""] ?? OVERVIEW;
}

/** Prints help. */
export function helpCommand(args: readonly string[]): number {
  console.log(helpText(args[0]));
  return 0;
}
