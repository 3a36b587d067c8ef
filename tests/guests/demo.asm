; The demo guest: finds Hyper-V's synthetic debugger, sends packets and prints the answers.
; In MSR mode a packet is the bare payload, in hypercall mode an Ethernet frame.
; It ends with HLT, interrupts off; a failure ends it through the debug-exit port.

%include "guest.inc"

HV_GUEST_OS_ID   equ 0x40000000
HV_HYPERCALL     equ 0x40000001
HV_TIME_REF      equ 0x40000020
SYNDBG_CONTROL   equ 0x400000F1
SYNDBG_STATUS    equ 0x400000F2
SYNDBG_SEND      equ 0x400000F3
SYNDBG_RECV      equ 0x400000F4
SYNDBG_PENDING   equ 0x400000F5
SYNDBG_OPTIONS   equ 0x400000FF

SEND_PAGE     equ BUFFERS
RECV_PAGE     equ BUFFERS + 0x1000
PENDING_PAGE  equ BUFFERS + 0x2000
CALL_PAGE     equ BUFFERS + 0x3000
INPUT_PAGE    equ BUFFERS + 0x4000
OUTPUT_PAGE   equ BUFFERS + 0x5000

WAIT_TICKS    equ 3000000       ; of 100 ns: how long an answer may take
BIG           equ 1400

main:
  say "guest: looking for a hypervisor", 10
  mov eax, 1
  cpuid
  bt ecx, 31
  jnc no_hypervisor
  mov eax, 0x40000000
  cpuid
  mov [max_leaf], eax
  mov [vendor], ebx
  mov [vendor + 4], ecx
  mov [vendor + 8], edx
  say "guest: cpuid 40000000 vendor "
  lea rsi, [vendor]
  mov ecx, 12
  call print_bytes
  say " max leaf "
  mov eax, [max_leaf]
  call print_hex32
  say 10
  mov eax, 0x40000001
  cpuid
  cmp eax, 0x31237648           ; Hv#1
  jne no_hypervisor
  mov eax, 0x40000003
  cpuid
  say "guest: cpuid 40000003 eax "
  call print_hex32
  say " ebx "
  mov eax, ebx
  call print_hex32
  say " edx "
  mov eax, edx
  call print_hex32
  say 10
  bt edx, 11                    ; debug MSRs
  jnc no_debugger
  cmp dword [max_leaf], 0x40000082
  jb no_debugger
  mov eax, 0x40000081
  cpuid
  cmp eax, 0x31235356           ; VS#1
  jne no_debugger
  mov eax, 0x40000082
  cpuid
  say "guest: cpuid 40000081 VS#1, 40000082 eax "
  call print_hex32
  say 10
  bt eax, 1
  jnc no_debugger

  ; As Windows does: whoever is first says who the guest is.
  mov ecx, HV_GUEST_OS_ID
  call safe_rdmsr
  jc failed
  test rax, rax
  jnz .known
  mov rax, 0x0001000101010001
  call safe_wrmsr
  jc failed
.known:
  mov ecx, SYNDBG_OPTIONS
  call safe_rdmsr
  jc failed
  mov [options], eax
  say "guest: rdmsr 400000ff (options) "
  call print_hex32
  say 10
  test dword [options], 4
  jnz hypercall_mode

; ---- MSR mode --------------------------------------------------------------------

msr_mode:
  say "guest: MSR mode", 10
  mov ecx, SYNDBG_SEND
  mov eax, SEND_PAGE
  call safe_wrmsr
  jc failed
  mov ecx, SYNDBG_RECV
  mov eax, RECV_PAGE
  call safe_wrmsr
  jc failed
  mov ecx, SYNDBG_PENDING
  mov eax, PENDING_PAGE
  call safe_wrmsr
  jc failed
  lea rax, [msr_exchange]
  mov [exchange], rax
  jmp conversation

; Sends ECX bytes of SEND_PAGE and waits for an answer: its length in EAX, text at RSI.
; CF says that none came.
msr_exchange:
  mov eax, ecx
  shl eax, 16
  or eax, 1
  mov ecx, SYNDBG_CONTROL
  call safe_wrmsr
  jc failed
  mov ecx, SYNDBG_STATUS
  call safe_rdmsr
  jc failed
  test al, 1
  jz send_failed
  call now
  mov rbx, rax
.wait:
  cmp byte [abs PENDING_PAGE], 0
  jne .receive
  pause
  call now
  sub rax, rbx
  cmp rax, WAIT_TICKS
  jb .wait
  stc
  ret
.receive:
  mov ecx, SYNDBG_CONTROL
  mov eax, 2
  call safe_wrmsr
  jc failed
  mov ecx, SYNDBG_STATUS
  call safe_rdmsr
  jc failed
  mov esi, RECV_PAGE
  test al, 4
  jz .wait
  shr eax, 16
  clc
  ret

; ---- what both modes say -----------------------------------------------------------

conversation:
  lea rsi, [hello]
  mov ecx, hello_end - hello
  call talk
  lea rsi, [second]
  mov ecx, second_end - second
  call talk
  ; a long packet with a pattern that the answer must repeat
  mov edi, SEND_PAGE + 0x800
  xor ecx, ecx
.fill:
  mov eax, ecx
  xor edx, edx
  mov ebx, 26
  div ebx
  add dl, 'a'
  mov [rdi + rcx], dl
  inc ecx
  cmp ecx, BIG
  jb .fill
  mov esi, SEND_PAGE + 0x800
  call talk
  say "guest: "
  mov eax, [answers]
  call print_decimal
  say " of 3 packets answered", 10
  say "guest: done", 10
  ret

; Sends ECX bytes at RSI and prints what comes back.
talk:
  mov [length], ecx
  mov edi, SEND_PAGE
  rep movsb
  mov ecx, [length]
  say "guest: sends "
  mov eax, ecx
  call print_decimal
  say " bytes", 10
  call [exchange]
  jc .nobody
  inc dword [answers]
  mov [received], eax
  say "guest: received "
  call print_decimal
  say " bytes: "
  mov ecx, [received]
  cmp ecx, 48
  jbe .short
  mov ecx, 48
.short:
  call print_bytes
  say 10
  ret
.nobody:
  say "guest: no answer", 10
  ret

; RAX = time in units of 100 ns.
now:
  push rcx
  push rdx
  mov ecx, HV_TIME_REF
  rdmsr
  shl rdx, 32
  or rax, rdx
  pop rdx
  pop rcx
  ret

no_hypervisor:
  say "guest: no Hyper-V here", 10
  ret
no_debugger:
  say "guest: Hyper-V, but no synthetic debugger", 10
  ret
send_failed:
  say "guest: sending failed", 10
  mov al, 2
  jmp fail
failed:
  say "guest: an MSR that CPUID offers faulted: "
  mov eax, ecx
  call print_hex32
  say 10
  mov al, 1
  jmp fail
call_failed:
  say "guest: hypercall status "
  call print_hex32
  say 10
  mov al, 3
  jmp fail

; ---- hypercall mode ------------------------------------------------------------------

hypercall_mode:
  ; The page works on every machine; the bare instructions do not trap on each (KVM without Hyper-V).
  say "guest: hypercall mode", 10
  mov ecx, HV_HYPERCALL
  mov eax, CALL_PAGE | 1
  call safe_wrmsr
  jc failed
  mov ecx, 0x6B | 0x10000       ; RESET_DEBUG_SESSION, fast
  mov edx, 3
  mov r8d, OUTPUT_PAGE
  mov eax, CALL_PAGE
  call rax
  cmp eax, 0
  je .reset
  cmp eax, 0x1B                 ; nothing was there to be purged
  jne call_failed
.reset:

  ; An address by DHCP and the gateway's hardware address, as a kernel does first.
  mov eax, 1
  call dhcp
  jc .no_dhcp
  mov eax, 3
  call dhcp
  jc .no_dhcp
  mov eax, [my_ip]
  bswap eax
  say "guest: DHCP gave address "
  call print_hex32
  say 10
.no_dhcp:
  call arp
  lea rax, [call_exchange]
  mov [exchange], rax
  jmp conversation

; POST of a frame of ECX bytes at INPUT_PAGE + 8.
post_frame:
  mov [abs INPUT_PAGE], ecx
  mov dword [abs INPUT_PAGE + 4], 0
  mov ecx, 0x69
  mov edx, INPUT_PAGE
  mov r8d, OUTPUT_PAGE
  mov eax, CALL_PAGE
  call rax
  test eax, eax
  jnz call_failed
  ret

; RETRIEVE of a frame to OUTPUT_PAGE + 8, waiting: its length in EAX, CF: none came.
retrieve_frame:
  call now
  mov rbx, rax
.again:
  mov dword [abs INPUT_PAGE], 4088
  mov dword [abs INPUT_PAGE + 4], 0
  mov qword [abs INPUT_PAGE + 8], 0
  mov ecx, 0x6A
  mov edx, INPUT_PAGE
  mov r8d, OUTPUT_PAGE
  mov eax, CALL_PAGE
  call rax
  test eax, eax
  jz .got
  cmp eax, 0x1B
  jne call_failed
  pause
  call now
  sub rax, rbx
  cmp rax, WAIT_TICKS
  jb .again
  stc
  ret
.got:
  mov eax, [abs OUTPUT_PAGE]
  clc
  ret

FRAME equ INPUT_PAGE + 8

; Builds Ethernet, IPv4 and UDP headers at FRAME for ECX bytes behind them.
; EAX: source address, EBX: destination address, DX: source port, R9W: destination port.
headers:
  push rcx
  mov edi, FRAME
  mov qword [rdi], 0
  mov dword [rdi + 8], 0
  mov word [rdi + 12], 0x0008
  mov word [rdi + 14], 0x0045
  lea r10d, [rcx + 28]
  mov r11d, r10d
  rol r11w, 8
  mov [rdi + 16], r11w
  mov dword [rdi + 18], 0
  mov word [rdi + 22], 0x1140   ; TTL 64, UDP
  mov word [rdi + 24], 0
  mov [rdi + 26], eax
  mov [rdi + 30], ebx
  rol dx, 8
  mov [rdi + 34], dx
  rol r9w, 8
  mov [rdi + 36], r9w
  lea r11d, [rcx + 8]
  rol r11w, 8
  mov [rdi + 38], r11w
  mov word [rdi + 40], 0
  ; header checksum
  xor eax, eax
  mov ecx, 10
  lea rsi, [rdi + 14]
.sum:
  movzx r11d, word [rsi]
  add eax, r11d
  add rsi, 2
  loop .sum
  mov r11d, eax
  shr r11d, 16
  movzx eax, ax
  add eax, r11d
  mov r11d, eax
  shr r11d, 16
  add eax, r11d
  not ax
  mov [rdi + 24], ax
  pop rcx
  ret

; Sends ECX bytes of SEND_PAGE in a frame and waits for a frame with a UDP answer.
call_exchange:
  mov esi, SEND_PAGE
  mov edi, FRAME + 42
  push rcx
  rep movsb
  pop rcx
  mov eax, [my_ip]
  mov ebx, [gateway]
  xor edx, edx                  ; Hyper-V's debug packets use ports 0 and 0
  xor r9d, r9d
  call headers
  add ecx, 42
  call post_frame
  call retrieve_frame
  jc .none
  mov esi, OUTPUT_PAGE + 8 + 42
  movzx eax, word [abs OUTPUT_PAGE + 8 + 38]
  rol ax, 8
  sub eax, 8
  clc
.none:
  ret

; One step of DHCP: message type in EAX. The address offered goes to [my_ip].
dhcp:
  push rax
  mov edi, FRAME + 42
  xor eax, eax
  mov ecx, 300 / 4
  rep stosd
  mov dword [abs FRAME + 42], 0x00060101
  mov dword [abs FRAME + 46], 0x78563412
  mov dword [abs FRAME + 42 + 236], 0x63538263
  mov word [abs FRAME + 42 + 240], 0x0135
  pop rax
  mov [abs FRAME + 42 + 242], al
  mov byte [abs FRAME + 42 + 243], 0xFF
  mov ecx, 300
  xor eax, eax
  mov ebx, -1
  mov edx, 68
  mov r9d, 67
  call headers
  mov ecx, 342
  call post_frame
  call retrieve_frame
  jc .none
  cmp word [abs OUTPUT_PAGE + 8 + 36], 0x4400
  jne .none
  mov eax, [abs OUTPUT_PAGE + 8 + 42 + 16]
  mov [my_ip], eax
  mov eax, [abs OUTPUT_PAGE + 8 + 42 + 20]
  mov [gateway], eax
  clc
  ret
.none:
  stc
  ret

; Asks for the gateway's hardware address.
arp:
  mov edi, FRAME
  mov eax, -1
  stosd
  stosw
  xor eax, eax
  stosd
  stosw
  mov ax, 0x0608
  stosw
  mov dword [rdi], 0x00080100
  mov dword [rdi + 4], 0x01000406
  mov qword [rdi + 8], 0
  mov eax, [my_ip]
  mov [rdi + 14], eax
  mov qword [rdi + 18], 0
  mov eax, [gateway]
  mov [rdi + 24], eax
  mov ecx, 42
  call post_frame
  call retrieve_frame
  jc .none
  cmp word [abs OUTPUT_PAGE + 8 + 12], 0x0608
  jne .none
  say "guest: ARP answered", 10
  ret
.none:
  say "guest: ARP not answered", 10
  ret

hello:
  db "hello, debugger: this is an x86 guest"
hello_end:
second:
  db "the second packet"
second_end:

align 8
exchange: dq 0
max_leaf: dd 0
options:  dd 0
length:   dd 0
received: dd 0
answers:  dd 0
my_ip:    dd 0x0505000A         ; 10.0.5.5
gateway:  dd 0x0105000A         ; 10.0.5.1
vendor:   times 12 db 0

align 16
image_end:
