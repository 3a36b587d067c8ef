const OVERVIEW =
  `syndbg: Hyper-V's synthetic debugger, on an x86 interpreter in TypeScript

Usage: syndbg [COMMAND] [OPTIONS]

Commands:
  demo     Boot the built-in guest and answer its debug packets (the default)
  run      Run a guest image
  debug    Debug a guest that speaks KDNET, from a console
  decode   Print the debug packets of a capture, or of a connection it relays
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
  --kvm-hyperv BY Who is Hyper-V on KVM: user, kernel or auto (default auto)
  --mode MODE     msr or hypercall (default msr)
  --profile NAME  hyperv or kvm (default hyperv)
  -h, --help      Print help`,
  run: `Run a guest image

Usage: syndbg run [IMAGE] [OPTIONS]
       syndbg run --linux KERNEL [--initrd FILE] [--append TEXT] [OPTIONS]

IMAGE is a multiboot 1 kernel, an ELF program, or a flat binary (with
--address); without one the built-in demo guest runs. COM1 is standard input
and output, port 0xe9 text goes there too. A write of V to port 0xf4 ends the
run with exit code V * 2 + 1; HLT with interrupts off and a reset end it with 0,
but with --debug udp: or kd a reset starts the guest again.
With --linux each key goes to the guest as it is pressed; Ctrl-A x leaves,
Ctrl-A h prints what else there is.

Options:
  --backend NAME      auto, interp or kvm (default auto: kvm where it is fit)
  --kvm-hyperv BY     Who is Hyper-V on KVM: user (syndbg), kernel (KVM's own,
                      which hands debug commands on) or auto (default auto:
                      kernel where KVM has it)
  --guest NAME        Built-in guest instead of an image: demo, or target, which a
                      KDNET debugger attaches to (key 1.2.3.4; --append
                      "key=W.X.Y.Z port=N" sets them)
  --memory SIZE       RAM, such as 64M (default 64M, for Linux 256M)
  --cpus N            vCPUs, 1 to 255 (default 1)
  --mode MODE         What OPTIONS tells the guest to use: msr or hypercall
                      (default msr)
  --debug WHERE       udp:HOST:PORT (default 127.0.0.1:50000), kd[:KEY] for a
                      console in this process (default key 1.2.3.4), pcap:FILE
                      or none; may be repeated (default none)
  -c, --command TEXT  With --debug kd: break in, run commands parted by ";", and
                      end
  --profile NAME      hyperv or kvm (default hyperv)
  --no-syndbg         Show the guest no synthetic debugger
  --enforce-cpuid     Refuse what no CPUID bit offers
  --trace[=FORMAT]    Trace SynDbg and hypercalls to standard error: text or
                      json (default text)
  --timeout TIME      End after a time such as 10s, 500ms or 2m
  --address ADDRESS   Load IMAGE as a flat binary at this address
  --entry ADDRESS     Where to begin
  --entry-mode MODE   real, protected or long
  --linux KERNEL      Boot a Linux kernel: a bzImage, or an ELF file by PVH
  --initrd FILE       Its initial RAM disk
  --disk FILE[,ro]    A virtio disk for Linux, ro: read-only; may be repeated,
                      up to 7
  --append TEXT       Command line for a multiboot image or for Linux (there
                      default "console=ttyS0")
  --module FILE       Module for a multiboot image; may be repeated
  --gdb [HOST]:PORT   Let GDB attach (default host 127.0.0.1; port 0 takes a
                      free one, which is printed)
  --gdb-wait          Wait for GDB's continue before the first instruction
  --gdb-arch NAME     i386 or amd64: registers that GDB is told of outside long
                      mode (default: what an ELF or Linux IMAGE is for, else
                      i386); in long mode always amd64
  -h, --help          Print help

Exit codes: the guest's, 2 for bad usage or a bad image, 3 for a triple fault,
124 for a timeout, 130 for Ctrl-C.`,
  debug: `Debug a guest that speaks KDNET, from a console

Usage: syndbg debug --key W.X.Y.Z [OPTIONS]

Waits at a UDP port for a target, as windbg -k net:port=50000,key=... does, and
takes WinDbg's commands from standard input. Ctrl-C breaks in, a second one ends
the waiting. The target goes on when the console ends. A target that is restarted
is taken up again. Numbers in commands are hexadecimal (0n10 is decimal).

Options:
  --key W.X.Y.Z         The key that target and debugger share
  --listen [HOST:]PORT  Where to wait (default 0.0.0.0:50000)
  -c, --command TEXT    Break in, run commands parted by ";", and end
  -b, --break           Break in when the target comes
  --symbols FILE        Symbols of an ELF or map file; may be repeated
  --json                A JSON object a line: results, and what the target does
  --timeout TIME        With -c: end after a time such as 10s
  --pcap FILE           Record the packets
  -h, --help            Print help

Exit codes: 0, 1 if a command of -c failed, 2 for bad usage, 124 for a timeout,
130 for Ctrl-C in -c.`,
  decode: `Print the debug packets of a capture, or of a connection it relays

Usage: syndbg decode FILE [OPTIONS]
       syndbg decode --listen [HOST:]PORT --forward HOST:PORT [OPTIONS]

FILE is a pcap or pcapng capture with UDP over IPv4. With --key each KDNET
datagram is opened and its KD message printed; without it, or without the
handshake of the session, what is visible. --listen takes a guest's packets and
passes them to a debugger, and back, until Ctrl-C; the guest is whoever sent last.

Options:
  --key W.X.Y.Z         The key that target and debugger share
  --json                A JSON object a line; 64-bit numbers are hexadecimal text
  --listen [HOST:]PORT  Relay what comes at this UDP port (on 127.0.0.1)
  --forward HOST:PORT   Where the debugger listens
  --pcap FILE           Record what is relayed
  -h, --help            Print help`,
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
