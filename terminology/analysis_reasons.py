"""Why an AI run declined a study or could not look: codes of our own, with Chinese and English words.

They stand in Task.statusReason (https://hl7.org/fhir/R4/task-definitions.html#Task.statusReason). Every reason that the
AI services give is one of these (a test compares); a code keeps its meaning, a new meaning is a new code.
"""

from __future__ import annotations

from terminology import systems
from terminology.codes import Code

_REASONS = (
    # The study and its series, from headers.
    ("no-mr-images", "The study holds no MR images", "该检查不含 MR 图像"),
    ("not-mr-image", "This is not an MR image series", "不是 MR 图像序列"),
    ("localizer", "A localiser is not analysed", "定位像不参与分析"),
    ("derived-series", "Reformatted or computed images are not analysed", "重建或计算所得的图像不参与分析"),
    ("not-lumbar-mr", "The images are not known to show, or do not show, a lumbar spine", "无法确认图像为腰椎"),
    ("not-sagittal", "The images are not sagittal", "图像不是矢状位"),
    ("not-t2", "The contrast is not T2", "图像不是 T2 对比"),
    ("field-of-view-too-small", "The field of view is too small for a lumbar spine", "视野过小，不足以覆盖腰椎"),
    ("enhanced-multi-frame", "Enhanced multi-frame MR is not supported yet", "尚不支持增强型多帧 MR"),
    ("mixed-echoes", "The series mixes images of several echoes or contrasts", "序列混有不同回波或对比的图像"),
    ("zero-slices", "The series has no images", "该序列没有图像"),
    ("too-few-slices", "The series has too few images to cover the spinal canal", "图像层数过少，不足以覆盖椎管"),
    ("too-large", "The images are larger than this installation can hold in memory", "图像过大，超出内存上限"),
    ("other-series-preferred", "Another series of the study fits better", "另一序列更合适"),
    # The same for CT.
    ("no-ct-images", "The study holds no CT images", "该检查不含 CT 图像"),
    (
        "ct-not-released",
        "CT is not analysed here: nobody has released a model for it",
        "本机构未发布 CT 模型，不分析 CT",
    ),
    ("not-ct-image", "This is not a CT image series", "不是 CT 图像序列"),
    ("not-lumbar-ct", "The images are not known to show, or do not show, a lumbar spine", "无法确认 CT 图像为腰椎"),
    ("sacrum-not-seen", "The sacrum is not seen, so vertebrae cannot be counted", "未见骶骨，无法计数椎体"),
    ("not-hounsfield", "The pixel values are not Hounsfield units", "像素值不是 CT 值"),
    (
        "gantry-tilt-contradicted",
        "The gantry tilt that is said is not the one that the positions show",
        "机架倾角标注与图像位置不符",
    ),
    ("slices-too-thick", "The slices are too far apart to part the vertebrae", "层间距过大，无法分开各椎骨"),
    ("metal-implant", "Metal lies in the images", "图像内有金属植入物"),
    # Geometry.
    ("geometry-missing", "The images do not say where they are in the patient", "图像缺少空间位置信息"),
    ("mixed-geometry", "The images of the series differ in plane, size or spacing", "序列内图像平面、尺寸或间距不一致"),
    ("duplicate-positions", "Two images lie at the same place", "有图像位于同一位置"),
    ("non-uniform-spacing", "The distances between the images differ: images may be missing", "层间距不一致，可能缺层"),
    ("missing-slices", "Images of the series are missing", "序列缺少图像"),
    # Pixels.
    ("unsupported-transfer-syntax", "The images' compression cannot be decoded", "无法解码图像的压缩格式"),
    ("invalid-pixel-data", "Pixel data is damaged, cut short or not a number", "像素数据损坏、不完整或含非数值"),
    ("not-greyscale", "The images are not greyscale", "图像不是灰度图像"),
    ("blank-image", "Images are blank", "图像为空白"),
    (
        "inverted-image",
        "The grey values are inverted: background is brighter than the patient",
        "图像灰度反转，背景亮于人体",
    ),
    # What the images show.
    (
        "orientation-contradicts-image",
        "The header's orientation contradicts the image: the spine is turned or upside down",
        "图像方向与标签不符，脊柱被翻转或旋转",
    ),
    (
        "implausible-scale",
        "Discs are too close or too far apart for an adult lumbar spine: another part of the spine, or a wrong scale",
        "椎间盘间距不符合成人腰椎，可能为其他节段或比例有误",
    ),
    ("incomplete-coverage", "The images do not cover the whole lumbar spine", "图像未完整覆盖腰椎"),
    ("metal-artefact", "Signal voids, as metal leaves them, lie in the spine", "脊柱内有金属样信号缺失"),
    ("uncertain-segmentation", "The outlines are too uncertain to be used", "分割不确定性过高，未予采用"),
    (
        "unlike-training",
        "The discs measure unlike those the model was trained on; it was not asked",
        "椎间盘测量值超出模型训练数据的范围，未予判读",
    ),
    # The model and the machine.
    (
        "model-integrity",
        "The model is missing or not the one released; it was not used",
        "模型缺失或与发布版本不符，已拒绝使用",
    ),
    ("model-output-invalid", "The model's output is not valid; it was not used", "模型输出无效，已拒绝使用"),
    (
        "no-model-released",
        "The last released model was recalled and nobody has released another",
        "最后发布的模型已召回，尚未发布其他模型",
    ),
    ("device-unavailable", "The device that the models must run on cannot be used", "指定的计算设备无法使用"),
    ("out-of-memory", "There was not enough memory for this study", "内存不足，未能完成分析"),
    # The request and the parts around it.
    ("incomplete-task", "The Task does not say what to work on", "任务未指明分析对象"),
    ("patient-mismatch", "The Task and the ImagingStudy name different patients", "任务与检查的患者不一致"),
    # Registration of two studies.
    ("different-patients", "The two studies are of different patients", "两次检查属于不同患者"),
    ("frame-of-reference-missing", "A series does not name one frame of reference", "序列未注明唯一的参考坐标系"),
    (
        "same-frame-of-reference",
        "Both series claim one frame of reference: they are aligned already, or one of the claims is wrong",
        "两序列标注同一参考坐标系：已对齐，或其中之一标注有误",
    ),
    ("not-registered", "The two series could not be registered well enough to be used", "两序列未能可靠配准，未予采用"),
    ("not-an-ai-report", "The report holds no finding of a model", "该报告不含模型给出的所见"),
    ("upstream-unavailable", "A part that the analysis needs does not answer", "所需服务无响应"),
    ("unexpected", "The analysis could not be completed", "未能完成分析"),
)

ANALYSIS_REASONS = {code: Code(systems.TASK_REASON, code, display, zh) for code, display, zh in _REASONS}
"""Code to its meaning."""
