"""SHA-256 of released files, where their authors published one. Paths are below the folder of all datasets."""

from collections.abc import Mapping
from types import MappingProxyType

#: MeViS: github.com/henghuiding/MeViS, issue 4. ReVOS: the table in the dataset's own README.
PUBLISHED: Mapping[str, str] = MappingProxyType(
    {
        "mevis/train/mask_dict.json": "f9d9b01a2a6d7a004e2e7a664ce2b9b1576218e975030f8e4df4f66111fb253f",
        "mevis/valid_u/mask_dict.json": "6e711a3f713cd95a825f536323e434b4d80f85a8e4e66d0cd662408e8779db50",
        "ReVOS/JPEGImages.zip": "1844db76c3075deb95034935a8208ba459272784242ec39de9287c66a4c22f07",
        "ReVOS/mask_dict.json": "e9b4310661495ddd47dedcac1e289621cf8f5dff89c0bb8b65f7699f748d5cff",
        "ReVOS/mask_dict_foreground.json": "05d9be5d7bbed03b216a457274022ad1c9e683b4ffdc32b19c60c5e797fd8f01",
        "ReVOS/meta_expressions_train_.json": "3917dfba8725d080c8658dc43ad4a84cf41ce51438acfaee70bef5aa0310417a",
        "ReVOS/meta_expressions_valid_.json": "127b975e78effef6033846e68989dcf79c692d644dd07c835b723cea700d4c2d",
    }
)

#: Folder of each dataset whose files are listed above.
FOLDERS: Mapping[str, str] = MappingProxyType({"mevis": "mevis", "revos": "ReVOS"})
