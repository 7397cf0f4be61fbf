/* libnvidia-ml.so.1 without a GPU, for tests: what clusterctl asks of NVML, answered from a table.
 *
 * FAKE_NVML_FLEET names the table, read at nvmlInit; one card a line, nine columns with a tab between:
 *
 *   name  capability  memory  used  utilization  temperature  watts  faults  processes
 *   NVIDIA A40  8.6  46068  2048  97  63  281  pcie=8,throttle=0x48  4242=2000,4243=48
 *
 * Memory is in MiB. A fault is a word of `fault_words` below, with a number where it needs one. Where a card sits is
 * said there too: numa=N, its memory node; switch=N, the PCIe switch above it; bridge=BITS, four NVLinks to each card
 * that has one of the bits too; nvswitch=N, so many NVLinks to NVSwitch. One without numa tells nothing of its place.
 * FAKE_NVML_INIT_ERROR (a number) is what nvmlInit answers instead of success.
 * FAKE_NVML_CALLS names a file that gets a line for each nvmlInit and nvmlShutdown.
 *
 * Types and numbers are those of NVIDIA's public nvml.h. With -DOLD_DRIVER the entry points are left out
 * that a driver of 2021 did not have.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum {
    SUCCESS = 0, UNINITIALIZED = 1, INVALID_ARGUMENT = 2, NOT_SUPPORTED = 3, NO_PERMISSION = 4, NOT_FOUND = 6,
    INSUFFICIENT_SIZE = 7, GPU_IS_LOST = 15, RESET_REQUIRED = 16, VERSION_MISMATCH = 25, UNKNOWN = 999
};

typedef enum {
    BARE,            /* tells its identity and memory, nothing else, like a desktop card */
    DENIED,          /* may not be opened: outside the job's device cgroup */
    ECC,             /* =N uncorrected memory errors since the driver was loaded */
    HANG,            /* never answers again */
    LOST,            /* gone before its handle was asked for */
    MIG,             /* =N instances; 0 is a card that is split but has none yet */
    PCIE,            /* =N lanes of 16 */
    PERSISTENCE_OFF,
    REMAP_FAILED,
    REMAP_PENDING,
    RESET,           /* answers nothing but its identity until it is reset */
    THROTTLE,        /* =BITS, reasons for low clocks */
    UNREADABLE,      /* an unknown error instead of a handle */
    VANISH,          /* gone after its name and UUID were asked for */
    XID,             /* =N in the past, of which NVML keeps nothing */
    NUMA, SWITCH, BRIDGE, NVSWITCH,
    FAULTS
} Fault;

static const char *const fault_words[FAULTS] = {
    "bare", "denied", "ecc", "hang", "lost", "mig", "pcie", "persistence-off", "remap-failed", "remap-pending",
    "reset", "throttle", "unreadable", "vanish", "xid",
    "numa", "switch", "bridge", "nvswitch"
};

typedef struct { unsigned pid; unsigned long long memory; unsigned instance, compute_instance; } Process;

typedef struct Card {
    char name[96], uuid[80], bus_id[32];
    unsigned long long memory, used;
    unsigned major, minor, utilization, temperature, milliwatts;
    long fault[FAULTS];                       /* its number, or -1 */
    Process process[16];
    unsigned processes;
    struct Card *parent;                      /* of a MIG instance */
} Card;

#define MIB (1ULL << 20)
#define RESERVED (583 * MIB)                  /* what the driver keeps for itself */

static Card fleet[64], instance[64];
static unsigned cards, instances, users;

/* --- the table --------------------------------------------------------------------------------- */

static void fail(const char *what, const char *where) {
    fprintf(stderr, "fake NVML: %s: %s\n", what, where);
    abort();
}

static void set_fault(Card *card, char *word) {
    char *number = strchr(word, '=');
    if (number) *number++ = 0;
    for (int f = 0; f < FAULTS; f++)
        if (!strcmp(word, fault_words[f])) {
            card->fault[f] = number ? strtol(number, NULL, 0) : 1;
            return;
        }
    fail("unknown fault", word);
}

static void add_process(Card *card, const char *text) {
    unsigned pid;
    unsigned long long mib;
    if (sscanf(text, "%u=%llu", &pid, &mib) != 2 || card->processes == 16) fail("bad process", text);
    card->process[card->processes++] = (Process){pid, mib * MIB, ~0u, ~0u};
}

static void add_instances(Card *card, unsigned index) {
    for (long i = 0; i < card->fault[MIG]; i++) {
        Card *part = &instance[instances++];
        *part = *card;
        part->parent = card;
        part->memory = card->memory / 2;
        snprintf(part->name, sizeof part->name, "%.60s MIG 3g.%llugb", card->name, part->memory / MIB / 1000);
        snprintf(part->uuid, sizeof part->uuid, "MIG-%08x-0000-5000-8000-%012lx", 0xb0000000 + index * 16 + (int)i, i);
        if (i) part->used = part->processes = 0;
    }
}

static void add_card(char *line) {
    char *column[9];
    for (int c = 0; c < 9; c++)
        if (!(column[c] = strsep(&line, "\t"))) fail("a card needs 9 columns", column[0]);

    Card *card = &fleet[cards];
    memset(card, 0, sizeof *card);
    snprintf(card->name, sizeof card->name, "%s", column[0]);
    snprintf(card->uuid, sizeof card->uuid, "GPU-%08x-0000-4000-8000-%012x", 0xfa000000 + cards, cards);
    snprintf(card->bus_id, sizeof card->bus_id, "00000000:%02X:00.0", 0x10 + 8 * cards);
    sscanf(column[1], "%u.%u", &card->major, &card->minor);
    card->memory = strtoull(column[2], NULL, 10) * MIB;
    card->used = strtoull(column[3], NULL, 10) * MIB;
    card->utilization = atoi(column[4]);
    card->temperature = atoi(column[5]);
    card->milliwatts = 1000 * atoi(column[6]);
    for (int f = 0; f < FAULTS; f++) card->fault[f] = -1;
    for (char *word; (word = strsep(&column[7], ","));) if (*word) set_fault(card, word);
    for (char *text; (text = strsep(&column[8], ","));) if (*text) add_process(card, text);
    add_instances(card, cards++);
}

static void read_fleet(void) {
    const char *path = getenv("FAKE_NVML_FLEET");
    FILE *table = path ? fopen(path, "r") : NULL;
    if (!table) fail("FAKE_NVML_FLEET cannot be read", strerror(errno));
    cards = instances = 0;
    for (char line[1024]; fgets(line, sizeof line, table);) {
        line[strcspn(line, "\n")] = 0;
        add_card(line);
    }
    fclose(table);
}

/* --- start and end ----------------------------------------------------------------------------- */

static void note(const char *call) {
    const char *path = getenv("FAKE_NVML_CALLS");
    FILE *calls = path ? fopen(path, "a") : NULL;
    if (!calls) return;
    fprintf(calls, "%s\n", call);
    fclose(calls);
}

int nvmlInitWithFlags(unsigned flags) {
    (void)flags;
    const char *error = getenv("FAKE_NVML_INIT_ERROR");
    if (error) return atoi(error);
    note("init");
    if (!users++) read_fleet();
    return SUCCESS;
}

int nvmlShutdown(void) {
    if (!users) return UNINITIALIZED;
    users--;
    note("shutdown");
    return SUCCESS;
}

const char *nvmlErrorString(int code) { return code == UNKNOWN ? "Unknown Error" : "an error of the fake NVML"; }

static int put(char *to, unsigned room, const char *text) {
    if (strlen(text) >= room) return INSUFFICIENT_SIZE;
    strcpy(to, text);
    return SUCCESS;
}

int nvmlSystemGetDriverVersion(char *to, unsigned room) { return users ? put(to, room, "550.163.01") : UNINITIALIZED; }

int nvmlDeviceGetCount_v2(unsigned *count) {
    *count = cards;
    return users ? SUCCESS : UNINITIALIZED;
}

int nvmlDeviceGetHandleByIndex_v2(unsigned index, Card **handle) {
    if (!users) return UNINITIALIZED;
    if (index >= cards) return INVALID_ARGUMENT;
    Card *card = *handle = &fleet[index];
    if (card->fault[DENIED] >= 0) return NO_PERMISSION;
    if (card->fault[LOST] >= 0) return GPU_IS_LOST;
    return card->fault[UNREADABLE] >= 0 ? UNKNOWN : SUCCESS;
}

/* --- one card ---------------------------------------------------------------------------------- */

/* Is there an answer? `basic` questions are answered by bare cards and by MIG instances too. */
static int reach(const Card *card, int basic) {
    if (!users) return UNINITIALIZED;
    while (card->fault[HANG] >= 0) pause();
    if (card->fault[VANISH] >= 0) return GPU_IS_LOST;
    if (card->fault[RESET] >= 0) return RESET_REQUIRED;
    return !basic && (card->parent || card->fault[BARE] >= 0) ? NOT_SUPPORTED : SUCCESS;
}

static long number_of(const Card *card, Fault fault, long otherwise) {
    return card->fault[fault] >= 0 ? card->fault[fault] : otherwise;
}

#define ASK(card, basic) do { int answer = reach(card, basic); if (answer != SUCCESS) return answer; } while (0)
#define NUMBER(function, type, value) \
    int function(Card *card, type *to) { ASK(card, 0); *to = (value); return SUCCESS; }

int nvmlDeviceGetName(Card *card, char *to, unsigned room) { return users ? put(to, room, card->name) : UNINITIALIZED; }
int nvmlDeviceGetUUID(Card *card, char *to, unsigned room) { return users ? put(to, room, card->uuid) : UNINITIALIZED; }

typedef struct { char legacy[16]; unsigned domain, bus, device, id, subsystem; char bus_id[32]; } Pci;

int nvmlDeviceGetPciInfo_v3(Card *card, Pci *to) {
    ASK(card, 1);
    memset(to, 0, sizeof *to);
    strcpy(to->bus_id, card->bus_id);
    return SUCCESS;
}

int nvmlDeviceGetCudaComputeCapability(Card *card, int *major, int *minor) {
    ASK(card, 1);
    *major = card->major;
    *minor = card->minor;
    return SUCCESS;
}

typedef struct { unsigned long long total, free, used; } MemoryV1;

int nvmlDeviceGetMemoryInfo(Card *card, MemoryV1 *to) {
    ASK(card, 1);
    *to = (MemoryV1){card->memory, card->memory - card->used - RESERVED, card->used + RESERVED};
    return SUCCESS;
}

typedef struct { unsigned gpu, memory; } Utilization;

int nvmlDeviceGetUtilizationRates(Card *card, Utilization *to) {
    ASK(card, 0);
    if (card->fault[MIG] >= 0) return NOT_SUPPORTED;
    *to = (Utilization){card->utilization, card->utilization / 2};
    return SUCCESS;
}

int nvmlDeviceGetTemperature(Card *card, unsigned sensor, unsigned *to) {
    ASK(card, 0);
    *to = card->temperature;
    return sensor ? INVALID_ARGUMENT : SUCCESS;
}

int nvmlDeviceGetTotalEccErrors(Card *card, unsigned uncorrected, unsigned since_ever, unsigned long long *to) {
    ASK(card, 0);
    *to = !uncorrected || since_ever ? 41 : (unsigned long long)number_of(card, ECC, 0);
    return SUCCESS;
}

int nvmlDeviceGetRemappedRows(Card *card, unsigned *corrected, unsigned *uncorrected, unsigned *pending, unsigned *failed) {
    ASK(card, 0);
    *corrected = *uncorrected = 1;
    *pending = card->fault[REMAP_PENDING] >= 0;
    *failed = card->fault[REMAP_FAILED] >= 0;
    return SUCCESS;
}

NUMBER(nvmlDeviceGetPowerUsage, unsigned, card->milliwatts)
NUMBER(nvmlDeviceGetEnforcedPowerLimit, unsigned, 300000)
NUMBER(nvmlDeviceGetPersistenceMode, unsigned, card->fault[PERSISTENCE_OFF] < 0)
NUMBER(nvmlDeviceGetCurrPcieLinkWidth, unsigned, number_of(card, PCIE, 16))
NUMBER(nvmlDeviceGetMaxPcieLinkWidth, unsigned, 16)
NUMBER(nvmlDeviceGetCurrentClocksThrottleReasons, unsigned long long, number_of(card, THROTTLE, 0x1))

/* --- where it sits ------------------------------------------------------------------------------ */

#define BRIDGE_LINKS 4

int nvmlDeviceGetMemoryAffinity(Card *card, unsigned words, unsigned long *to, unsigned socket) {
    ASK(card, 0);
    if (card->fault[NUMA] < 0 || socket) return NOT_SUPPORTED;
    memset(to, 0, words * sizeof *to);
    to[card->fault[NUMA] / 64] = 1UL << card->fault[NUMA] % 64;
    return SUCCESS;
}

int nvmlDeviceGetTopologyCommonAncestor(Card *card, Card *other, unsigned *level) {
    enum { SINGLE = 10, NODE = 40, SYSTEM = 50 };
    ASK(card, 0);
    ASK(other, 0);
    if (card->fault[NUMA] < 0 || other->fault[NUMA] < 0) return NOT_SUPPORTED;
    int same_switch = card->fault[SWITCH] >= 0 && card->fault[SWITCH] == other->fault[SWITCH];
    *level = same_switch ? SINGLE : card->fault[NUMA] == other->fault[NUMA] ? NODE : SYSTEM;
    return SUCCESS;
}

/* The card at the other end of a bridge's link: the links go round the others, four for each. */
static Card *beyond(const Card *card, unsigned link) {
    for (unsigned c = 0; c < cards; c++)
        if (&fleet[c] != card && fleet[c].fault[BRIDGE] > 0 && fleet[c].fault[BRIDGE] & card->fault[BRIDGE]) {
            if (link < BRIDGE_LINKS) return &fleet[c];
            link -= BRIDGE_LINKS;
        }
    return NULL;
}

int nvmlDeviceGetNvLinkState(Card *card, unsigned link, unsigned *active) {
    ASK(card, 0);
    if (card->fault[BRIDGE] < 0 && card->fault[NVSWITCH] < 0) return NOT_SUPPORTED;
    if (link >= 18) return INVALID_ARGUMENT;
    *active = card->fault[BRIDGE] >= 0 ? !!beyond(card, link) : link < card->fault[NVSWITCH];
    return SUCCESS;
}

int nvmlDeviceGetNvLinkRemotePciInfo_v2(Card *card, unsigned link, Pci *to) {
    ASK(card, 0);
    memset(to, 0, sizeof *to);
    Card *other = card->fault[BRIDGE] >= 0 ? beyond(card, link) : NULL;
    if (other) strcpy(to->bus_id, other->bus_id);
    else snprintf(to->bus_id, sizeof to->bus_id, "00000000:%02X:00.0", 0xC0 + link % 6);
    return SUCCESS;
}

/* --- MIG --------------------------------------------------------------------------------------- */

int nvmlDeviceGetMigMode(Card *card, unsigned *current, unsigned *pending) {
    ASK(card, 0);
    *current = *pending = card->fault[MIG] >= 0;
    return SUCCESS;
}

NUMBER(nvmlDeviceGetMaxMigDeviceCount, unsigned, 7)

int nvmlDeviceGetMigDeviceHandleByIndex(Card *card, unsigned number, Card **handle) {
    ASK(card, 0);
    for (unsigned i = 0; i < instances; i++)
        if (instance[i].parent == card && number-- == 0) {
            *handle = &instance[i];
            return SUCCESS;
        }
    return NOT_FOUND;
}

/* --- processes --------------------------------------------------------------------------------- */

int nvmlDeviceGetComputeRunningProcesses_v2(Card *card, unsigned *count, Process *to) {
    ASK(card, 1);
    unsigned room = *count;
    *count = card->processes;
    if (room < card->processes) return INSUFFICIENT_SIZE;
    if (to) memcpy(to, card->process, card->processes * sizeof *to);
    return SUCCESS;
}

/* --- what newer drivers have ------------------------------------------------------------------- */

#ifndef OLD_DRIVER
int nvmlSystemGetCudaDriverVersion(int *version) {
    *version = 12040;
    return users ? SUCCESS : UNINITIALIZED;
}

typedef struct { unsigned version; unsigned long long total, reserved, free, used; } MemoryV2;

int nvmlDeviceGetMemoryInfo_v2(Card *card, MemoryV2 *to) {
    ASK(card, 1);
    if (to->version != (sizeof *to | 2 << 24)) return VERSION_MISMATCH;
    *to = (MemoryV2){to->version, card->memory, RESERVED, card->memory - card->used - RESERVED, card->used};
    return SUCCESS;
}

typedef struct { unsigned version, sensor; int degrees; } TemperatureV1;

int nvmlDeviceGetTemperatureV(Card *card, TemperatureV1 *to) {
    if (to->version != (sizeof *to | 1 << 24)) return VERSION_MISMATCH;
    return nvmlDeviceGetTemperature(card, to->sensor, (unsigned *)&to->degrees);
}

int nvmlDeviceGetCurrentClocksEventReasons(Card *card, unsigned long long *to) {
    return nvmlDeviceGetCurrentClocksThrottleReasons(card, to);
}

int nvmlDeviceGetComputeRunningProcesses_v3(Card *card, unsigned *count, Process *to) {
    return nvmlDeviceGetComputeRunningProcesses_v2(card, count, to);
}
#endif
