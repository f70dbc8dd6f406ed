"""What identifies a file in results: a hash of its content, and a name that is no patient's.

Names of slides are often those of patients, or their record numbers.  `why_personal` is the rule by which
such a name is recognised, `docs/security.md` states it in words, and `name_of` is what stands in its place:
``anonymous-`` and the first eight digits of the hash of the file's content.
"""

import hashlib
import re
import unicodedata
from functools import lru_cache
from itertools import pairwise
from pathlib import Path
from typing import Final

from napari_flag.errors import UserError
from napari_flag.files import ending, files_ending, quick_digest, utf8
from napari_flag.formatting import storable

MOST_FILES: Final = 256
"""Of a folder (DICOM, an image of a zarr): names and sizes of all its files, and the content of so many."""
DIGITS: Final = 8
"""Of the hash in a neutral name."""
NEUTRAL: Final = "anonymous"


# --- the hash ----------------------------------------------------------------------------------
def content_hash(path: Path) -> str | None:
    """Return the hash that identifies a slide by its content, quickly whatever its size.

    Parameters
    ----------
    path
        A file, or a folder that is one slide.  A DICOM file stands for all of its folder, and a MIRAX file
        for its folder of data too, since these make up the slide.

    Returns
    -------
    64 hexadecimal digits: that of `files.quick_digest` of a file; of a folder, of the same for its files
    by name.  None where nothing can be read.
    """
    try:
        return _hash(_whole(path), state_of(path))
    except (OSError, UserError):
        return None


def is_digest(value: object) -> bool:
    """Return whether a value is a hash as `content_hash` writes it: 64 hexadecimal digits."""
    return isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) is not None


def state_of(path: Path) -> tuple[int, int | str]:
    """Return what is another as soon as a slide is written anew; nothing of its content is read.

    Parameters
    ----------
    path
        As `content_hash` takes it.

    Returns
    -------
    Size in bytes and time of change in ns of a file; of a slide of several files their size together, and a
    hash of the name, size and time of each, since the time of a folder does not tell what is in its files.

    Raises
    ------
    OSError
        Where there is no such file.
    """
    states = [(name, file.stat()) for name, file in _files_of(_whole(path))]
    if [name for name, _ in states] == [()]:
        return states[0][1].st_size, states[0][1].st_mtime_ns
    listed = "\n".join(f"{name}:{state.st_size}:{state.st_mtime_ns}" for name, state in states)
    return sum(state.st_size for _, state in states), hashlib.sha256(utf8(listed)).hexdigest()


@lru_cache(maxsize=512)
def _hash(whole: Path, state: tuple[int, int | str]) -> str | None:
    """Return the hash of a file or folder as it was in `state`."""
    files = _files_of(whole)
    if [name for name, _ in files] == [()]:
        return quick_digest(whole).hexdigest() if whole.is_file() else None
    digest, step = hashlib.sha256(), max(1, -(-len(files) // MOST_FILES))
    for number, (name, file) in enumerate(files):
        digest.update(utf8(f"{name}:{file.stat().st_size}\n"))
        if number % step == 0:
            digest.update(quick_digest(file).digest())
    return digest.hexdigest()


def _whole(path: Path) -> Path:
    """Return the folder that a DICOM file stands for, and any other path as it is; absolute."""
    path = path.absolute()
    return path.parent if ending(path) == ".dcm" and path.is_file() else path


def _files_of(whole: Path) -> list[tuple[tuple[str, ...], Path]]:
    """Return the files that make up a slide: the parts of each one's name in it, none of `whole` itself."""
    data = whole.with_suffix("") if ending(whole) == ".mrxs" else whole
    files = [] if whole.is_dir() else [whole]
    files += _files_in(data) if data.is_dir() else []
    return [(file.relative_to(whole.parent).parts[1:], file) for file in files]


def _files_in(folder: Path) -> list[Path]:
    dicom = files_ending(folder, ".dcm")
    return dicom or sorted(file for file in folder.rglob("*") if file.is_file())


# --- the name ----------------------------------------------------------------------------------
def neutral_name(digest: str | None) -> str:
    """Return what is called in results what must not be called by its name; what is no hash is left out."""
    return f"{NEUTRAL}-{digest[:DIGITS]}" if digest is not None and is_digest(digest) else NEUTRAL


def name_of(path: Path, keep: bool = False) -> str:
    """Return how results name a file or folder: by its name, never by the folders it lies in.

    A part of a zarr is named from the zarr on.  A name that may be a patient's is replaced, unless `keep`.
    """
    stores = [place for place, part in enumerate(path.parts) if ending(part) == ".zarr"]
    parts = list(path.parts[stores[-1] :]) if stores else [path.name]
    whole = Path(*path.parts[: stores[-1] + 1]) if stores else path
    if not keep and why_personal(parts[0]) is not None:
        endings = "".join(
            end for end in Path(parts[0]).suffixes[-2:] if re.fullmatch(r"\.[a-zA-Z]\w{0,7}", end)
        )
        parts[0] = neutral_name(content_hash(whole)) + endings
    return storable("/".join(parts))


def names_folder(text: str) -> bool:
    """Return whether a sentence names an absolute path: of Unix, the home folder, Windows or a share."""
    return _FOLDERS.search(text) is not None


_FOLDERS: Final = re.compile(r"(?<![\w.])(?:~|[A-Za-z]:)?[\\/]{1,2}[^\\/\s]+|file://")


def why_personal(name: str) -> str | None:
    """Return what in the name of a file may point to a patient, such as "a date"; None where nothing does.

    Names of public archives and of instruments (TCGA, GTEx, GEO, UUIDs, Visium's slides) are set aside first.
    What no rule can see, such as a surname alone, is not found.
    """
    text = _PUBLIC.sub(" ", unicodedata.normalize("NFC", name))
    for pattern, what in _RULES:
        if pattern.search(text):
            return what
    return "a person's name" if _holds_name(text) else None


_PUBLIC: Final = re.compile(
    r"""(?<![A-Za-z0-9])(?:
    anonymous(?:-[0-9a-f]{8})?                                                             # our own
    | [0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12}                                           # UUID
    | TCGA-[A-Z0-9]{2}-(?=[A-Z]*\d)[A-Z0-9]{4}(?:-(?=[A-Z]*\d)[A-Z0-9]{2,4}){0,4}
    | GTEX-(?=[A-Z]*\d)[A-Z0-9]{4,5}(?:-\d{4})?
    | C3[LN]-\d{5}(?:-\d{2})?                                                              # CPTAC
    | (?:GS[EM]|[SED]R[RXSP]|SAM(?:N|EA|D)|PRJ(?:NA|EB|DB)|EGA[A-Z]|NCT|ENS[A-Z]*|HRA|CRA|phs)\d+
    | V\d\d[A-Z]\d\d-\d{3}                                                                 # Visium
    | (?=[0-9a-f]*[a-f])(?=[0-9a-f]*\d)[0-9a-f]{16,}                                       # a hash
    )(?![A-Za-z0-9])""",
    re.IGNORECASE | re.VERBOSE,
)
_DAY: Final = r"(?:0?[1-9]|[12]\d|3[01])"
_YEAR: Final = r"(?:19\d\d|20[0-3]\d)"
"""Of a date whose month or day may have one digit: 2048 is the width of a tile more often."""
_MONTH: Final = r"(?:0?[1-9]|1[0-2])"
_MONTHS: Final = r"(?:jan|feb|mar|mär|apr|may|mai|jun|jul|aug|sep|oct|okt|nov|dec|dez)[a-zä]*"
_RULES: Final = tuple(
    (re.compile(pattern, re.IGNORECASE), what)
    for pattern, what in (
        (r"(?<!\d)(?:19|20)\d\d(?:0[1-9]|1[0-2])(?:0[1-9]|[12]\d|3[01])(?!\d)", "a date"),
        (rf"(?<!\d){_YEAR}([-_. ]){_MONTH}\1{_DAY}(?!\d)", "a date"),
        (rf"(?<!\d){_DAY}([-_. ]){_MONTH}\1{_YEAR}(?!\d)", "a date"),
        (rf"(?<!\d){_MONTH}([-_. ]){_DAY}\1{_YEAR}(?!\d)", "a date"),
        (r"(?<![\d.-])(?<!(?<![a-z])v)(?:0[1-9]|[12]\d|3[01])([-.])(?:0[1-9]|1[0-2])\1\d\d(?!\d|[.-]\d)",
         "a date"),
        (rf"(?<![\da-z]){_DAY}[-_. ]?{_MONTHS}[-_. ]?(?:19|20)?\d\d(?!\d)", "a date"),
        (rf"(?<![a-z]){_MONTHS}[-_. ]?{_DAY}[-_. ,]+(?:19|20)\d\d(?!\d)", "a date"),
        (r"(?<!\d)\d{3}-\d\d-\d{4}(?!\d)|(?<!\d)\d{6}[-+A]\d{3}[0-9A-Z](?![0-9A-Z])", "a personal number"),
        (r"(?<!\d)\d{3}([-_. ])\d{3}\1\d{4}(?!\d)", "a personal number"),
        (r"(?<![a-z])(?:mrn|dob|ssn|nhs|pid|pat(?:ient)?[-_ ]?id|acc(?:ession)?|case[-_ ]?n[or])"
         r"[-_ .:#]*\d{3,}", "a record number"),
        (r"(?<![a-z])pat(?:ient)?[-_ .:#]*\d{4,}", "a record number"),
        (r"(?<![a-z0-9])[a-z]{1,3}[-_. ]?(?:19|20)?\d\d[-_./ ]\d{4,7}(?![a-z0-9])", "an accession number"),
        (r"(?<![a-z0-9])[a-z]{1,3}[-_. ]?(?:19|20)\d\d[-/]\d{3}(?![a-z0-9])", "an accession number"),
        (r"(?<![a-z0-9])\d\d[a-wyz]\d{4,7}(?![a-z0-9])", "an accession number"),
        (r"(?<!\d)\d{7,}(?!\d)", "a long number"),
        (r"[^\W\d_]\^[^\W\d_]", "a person's name"),
    )
)  # fmt: skip
_WORD: Final = re.compile(r"[^\W\d_]+(?:['’][^\W\d_]+)*")
_ONE_WORD: Final = ("BenchMark", "CharlesRiver", "KarlStorz", "LandMark", "MarkDown", "WaterMark")
"""Words with a capital within that are no first and last name: machines, firms, terms."""
_HUMP: Final = re.compile(
    rf"(?:{'|'.join(_ONE_WORD)})(?![^\WA-ZÄÖÜ\d_])|[A-ZÄÖÜ]?[^\WA-ZÄÖÜ\d_]+|[A-ZÄÖÜ]+(?![^\WA-ZÄÖÜ\d_])"
)
_SHORT: Final = 4
"""Words in capitals below this length are codes and no names."""


def _holds_name(text: str) -> bool:
    """Return whether two words side by side may be first and last name.

    These are two capitalised words that no slide's name is made of, or a frequent first name, however it is
    written, beside another word of that kind.  Words that are written as one, "JaneDoe", count where one of
    them is a frequent first name: names of programs and machines are written so too.
    """
    words = list(_WORD.finditer(text))
    if any(_holds_first_name(*pair) for word in words for pair in pairwise(_HUMP.findall(word[0]))):
        return True
    for one, other in pairwise(words):
        if any(letter.isdigit() for letter in text[one.end() : other.start()]):
            continue
        pair = one[0], other[0]
        if not any(_is_common(word) for word in pair) and all(_is_capitalised(word) for word in pair):
            return True
        if _holds_first_name(*pair):
            return True
    return False


def _holds_first_name(*pair: str) -> bool:
    """Return whether one of two words is a frequent first name, and the other may be a last one."""
    if min(map(len, pair)) < 2 or any(_is_common(word) for word in pair):
        return False
    return any(word.casefold() in _FIRST_NAMES for word in pair)


def _is_common(word: str) -> bool:
    """Return whether names of slides are made of such a word, or of the words in it ("BreastCancer")."""
    humps = [hump.casefold() for hump in _HUMP.findall(word)]
    if word in _ONE_WORD or word.casefold() in _COMMON:
        return True
    return len(humps) > 1 and all(hump in _COMMON for hump in humps)


def _is_capitalised(word: str) -> bool:
    if word.isupper():
        return len(word) >= _SHORT
    return len(word) > 1 and word[0].isupper()


_COMMON: Final = frozenset(
    """
    acc acinar add adenocarcinoma adenoma adipose adjacent adrenal adult after aged aligned anatomy and
    anterior aorta aperio appendix archive area array artery atlas atrium autopsy axillary background bad
    barrett basal base baseline batch before benign best bev bif big bile bin biobank biopsy bladder
    blank blca bleep block blood blue bone bottom bovine bowel brain brainstem brca breast bright
    brightfield bronchus btf calibration cancer canine capture carcinoma cardiac cartilage case cecum
    cell cells center central centre cerebellum cervical cervix cesc chip chol cholangiocarcinoma chronic
    clean clear clinic cmu coad coadread coarse cohort colon color colorectal colour combined compare
    complete conch control converted copy cord core coronal corrected cortex cosmx count counts crc crop
    cropped csv cyst cytassist czi dapi dat data dataset day dcis dcm deep default demo dense department
    dermal dermis development diffuse disease distal distance dlbc dlpfc dog domain dorsal double down
    draft draws drosophila ductal duodenum duplicates early edge embryo embryonic endometrium endothelial
    entire
    eosin epidermis epithelial epithelium esca esophagus evaluation example exp experiment export
    expression external eye fat femur fetal ffpe fibre fibroadenoma fibrosis field figure file filtered
    final fine first fixed flag fluorescence focus follicular for formalin fov fresh from front frontal
    frozen full fused gastric gbm gene genes genome geojson geomx germinal gland gleason glioblastoma
    glioma global gmt good grade gradient graph green grey group gut gz h5 h5ad hamamatsu hcc he head
    heart hematoxylin hepatic hepatocellular her her2st hest hibou high hippocampus hipt hires histogene
    histology hne hnsc hodgkin homo hospital human hyperplasia idc ihc ileum image images immune in
    infiltrating inflamed inflammation inner input inside institute intestine invasive ischemic istar
    jpeg jpg json kich kidney kirc kirp lab label labels laml landscape large laser late layer left leica
    lesion leukemia level library light lihc line linear lines lipid list liver lobe lobular local long
    low lower lowres luad luminal lung lusc lymph lymphoid lymphoma macaque macro magnification main male
    malignant mammary manual map margin marker mask master matched matrix max mean measured measurement
    medical medicine medium medulla medulloblastoma melanoma membrane mend merfish merged meso metadata
    metastasis metastatic method mini mirax misc mixed model monkey mono montage mouse mrxs mtx mucosa
    multi multiple mus muscle musculus myocardial narrow native ncbi ndpi necrosis nerve net network neural
    new node nodule normal npy nsclc nuclei nucleus number of off olfactory olympus ome on one organ
    organoid original other our ours out outer output ov ovarian ovary overlay overview paad page pair
    pancreas pancreatic panel papillary paraffin parathyroid parent parquet part partial patch path
    pathology patient pcpg pdac pdf pdx pediatric peripheral phikon philips photo picture pig pilot pixel
    placenta plain plasma plate plot png point polyp pool porcine portal position positions posterior
    postmortem prad predicted prediction predictions prepared preview primary prime pro probe processed
    project prostate protein protocol proximal pulmonary purple pyramid qptiff quality rabbit random rat
    rattus raw read readme rectum recurrent red reduced ref reference region registered renal rep repeat
    replicate rescan research resected resection result results retina ridge right round run safetensors
    sagittal salivary sample samples sapiens sarc sarcoma scan scanned scanner scans scar scc school sclc
    scn score screen section sections segment selected seminoma sequencing serial series serous set sheep
    sheet short side sigmoid signal simulated simulation single site skcm skin slice slide slides small
    smooth snap soft space spatial specimen spinal spleen spot spots squamous st stad stage stain stained
    staining standard stem stereo stflow stitched stnet stomach store stpath stroma study subset superior
    svg svs svslide synthetic table tag targeted team technical template temporal tenx test testis tgct
    thca the thin thoracic three thym thymus thyroid tif tiff tile tiles tissue titan tma tnbc to tongue
    tonsil top total trachea train training transcriptome transcriptomics transverse trial triplex true
    truth tsv tubular tumor tumour two txt type ucec ucs ulcer under uni uniform university unknown
    unstained untitled unused upper urothelial uterine uterus uvm validation vein ventana ventral
    ventricle ventricular version very view virchow virtual visium vms vmu volume vsi wall warped webp
    week weights white whole wide wild window with without wsi xenium xenograft xlsx xml year yellow zarr
    zebrafish zeiss zip zone zoom
    """.split()  # noqa: SIM905 - a list of so many strings would be ten pages
)  # fmt: skip
"""Words that names of slides, tables and predictions are made of: tissues, diseases, stains, species,
machines, file endings, cohorts, methods."""
_FIRST_NAMES: Final = frozenset(
    """
    aaron abdul abdullah adam agnes ahmed aisha alan albert alejandro alexander alexandra ali alice
    amanda amir amit amy ana anders andrea andreas andrew andrzej angela anita anke anna anne anneliese
    annette antonio arthur astrid barbara beatriz ben benjamin bernd bernhard birgit bjorn bob brian
    brigitte bruno carl carla carlos carmen carol caroline catherine charles charlotte chloe chris
    christa christian christina christine christoph christopher claire claudia cristina cynthia daniel
    daniela david deborah denise dennis diego dieter dirk dmitri dolores dominik donald donna doris
    dorothy edith eduardo edward elena elif elisabeth elizabeth ella elsa emil emily emma eric erik erika
    ernst esther eva evelyn fatima felix fernando francesca francesco francisco frank franz frederic
    friedrich fritz gabriel gabriele gary georg george gerald gerard gerd gerda gerhard gertrud gisela
    giulia giuseppe gloria gregory greta guido gunter gustav hans harald harry hassan heather heidi heike
    heinrich heinz helen helena helga helmut henri henry herbert hermann hilde hildegard horst hugo ian
    ibrahim igor ilse ines inge ingrid irene irina isabel isabella ivan jacob jacques jakob james jan
    jane janet javier jean jennifer jeremy jessica jim joachim joan joanna joe johan johann johanna
    johannes john jonas jonathan jorge jose josef joseph juan judith juergen julia julian julie jurgen
    karen karin karl karsten katarzyna kate katharina katherine kathleen kenneth kevin klaus kurt lars
    laura laurent lea lena leo leon linda lisa lucas lucia luigi luis lukas magdalena mahmoud manfred
    manuel marc marcel marco marcus margaret margarete maria marie mario marion mark marko markus marta
    martha martin martina mary matthew matthias mehmet melissa michael michel michelle miguel mohamed
    mohammad mohammed monika mustafa nancy natalia nicholas nicole nikolaus nina noah nora norbert olaf
    olga oliver olivia omar oscar otto pablo patricia patrick paul paula pavel pedro peter petra philip
    philippe pierre piotr rachel rafael rainer ralf raymond rebecca renate richard rita robert roberto
    roger roland rolf ronald rosa rosemarie rudolf ruth sabine samuel sandra sara sarah sebastian sergei
    sharon silvia simon simone sofia sophie stefan stefanie stephanie stephen steven susan susanne sven
    svetlana sylvia tatiana teresa theodor theresa thomas thorsten tim timothy tom tomasz ulrich ulrike
    ursula uwe valentina vera veronica victor viktor vincent vladimir walter waltraud werner wilhelm
    william wolfgang xavier yasmin yusuf yvonne zoe
    """.split()  # noqa: SIM905
)  # fmt: skip
"""Frequent first names; those that are words of the laboratory too (Rose, Grace, Will) are left out."""
